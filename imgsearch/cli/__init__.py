"""The command line: parse, call the core, render, exit code. Nothing imports this package.

Modules here import the core inside functions, and the module of a command is imported when it is
used, so that `--help` and every command start quickly.
"""

import contextlib
import errno
import gc
import io
import os
import sys
import warnings
from typing import Annotated, NoReturn

import typer

from imgsearch import __version__
from imgsearch.cli.commands import CONTEXT_SETTINGS, CommandGroup
from imgsearch.errors import ImgsearchError

app = typer.Typer(
    cls=CommandGroup,
    name="imgsearch",
    help="Index large folders of images, and search them by image, text and metadata.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Plain help, as loading Rich takes as long as everything else.
    rich_markup_mode=None,
    context_settings=CONTEXT_SETTINGS,
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"imgsearch {__version__}")
        raise typer.Exit


@app.callback()
def _top(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    pass


# A full disk, a quota, a limit on the size of files, and a failing device.
_NO_ROOM = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG, errno.EIO)


def main() -> None:
    """Run the command. An error becomes one line on stderr and an exit code."""
    # Decoders warn about unusual EXIF data and palettes, which users cannot act on.
    warnings.filterwarnings("ignore", module=r"PIL\..*")
    # Imports create many objects and little garbage. Collecting it after every 700 objects takes a
    # tenth of the time of the imports.
    gc.set_threshold(50_000)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        # File names may contain characters that the encoding of the output lacks, such as cp1252 or
        # ASCII. Escape them, as Python does on stderr.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except ImgsearchError as error:
        from imgsearch.cli.remedies import message

        _fail(message(error), error.exit_code)
    except BrokenPipeError:
        # The reader has closed the pipe. Python would report it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.filename is None and error.errno in _NO_ROOM:
            _fail(f"the output cannot be written: {error.strerror}", 1)
        _fail_internally(error)
    except MemoryError:
        _fail("out of memory; use a smaller --batch-size or fewer --workers", 1)
    except Exception as error:
        if "start new thread" in str(error):  # the limit of a user or a container
            _fail("the system allows no more threads; use fewer --workers", 1)
        _fail_internally(error)


def _fail_internally(error: Exception) -> NoReturn:
    if os.environ.get("IMGSEARCH_DEBUG"):
        raise error
    _fail(
        f"internal error, please report it: {type(error).__name__}: {error} "
        "(IMGSEARCH_DEBUG=1 shows where)",
        1,
    )


def _fail(message: str, exit_code: int) -> NoReturn:
    from imgsearch.cli.console import printable, stderr

    console = stderr()
    with contextlib.suppress(OSError):  # the exit code still says so
        console.print("[bold red]error:[/]", end=" ", highlight=False)
        console.print(printable(message), markup=False, highlight=False, soft_wrap=True)
    sys.exit(exit_code)
