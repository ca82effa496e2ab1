"""The core's messages name no option of a command; each front end adds what helps its users."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import imgsearch
from imgsearch.cli import remedies as cli_remedies
from imgsearch.errors import CollectionMismatchError, ImageError, Remedy
from imgsearch.server import redact as server_messages
from tests.conftest import Cli

PACKAGE = Path(imgsearch.__file__).parent
FRONT_ENDS = {"cli", "server"}
# An option, or a command line.
OPTION = re.compile(r"(?<![\w-])--[a-z]|`imgsearch [a-z]|[Rr]un it again")


def _texts(file: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and value of each string of a module, docstrings aside."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in docstrings
        ):
            yield node.lineno, node.value


def test_no_message_of_the_core_names_an_option_or_a_command() -> None:
    found = [
        f"{file.relative_to(PACKAGE)}:{line}: {text}"
        for file in PACKAGE.rglob("*.py")
        if file.relative_to(PACKAGE).parts[0] not in FRONT_ENDS
        for line, text in _texts(file)
        if OPTION.search(text)
    ]
    assert found == []


@pytest.mark.parametrize("remedy", Remedy)
def test_the_command_line_words_every_remedy(remedy: Remedy) -> None:
    text = cli_remedies.message(ImageError("no good", remedy))
    assert re.fullmatch(r"no good; .*(--[a-z]|`imgsearch |`pip install ).*", text)


def test_remedies_are_alternatives() -> None:
    error = CollectionMismatchError("no good", Remedy.LEAVE_OUT_MODEL, Remedy.USE_OTHER_COLLECTION)
    assert cli_remedies.message(error) == "no good; omit --model, or use another --collection"
    assert str(error) == "no good"
    assert cli_remedies.message(ImageError("no good")) == "no good"


def test_the_service_names_only_what_its_operator_can_change() -> None:
    error = ImageError("no good", Remedy.RAISE_MAX_PIXELS, Remedy.REPLACE)
    assert server_messages.message(error) == "no good; the service's --max-pixels sets it"
    assert server_messages.message(ImageError("no good", Remedy.REPLACE)) == "no good"


def test_an_error_of_the_command_ends_with_its_remedies(cli: Cli, tmp_path: Path) -> None:
    failed = cli("query", "--text", "shoe", "--store", tmp_path)
    assert failed.code == 1
    assert failed.err.rstrip().endswith("(there is none); create one with `imgsearch ingest`")
