"""The commands by name. The module of a command is imported when the command is used."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"]}

# Module in this package, function, and what `imgsearch --help` says.
_COMMANDS = {
    "ingest": ("ingest", "ingest", "Add images to a collection."),
    "query": ("query", "query", "Find similar images, by image, text or both."),
    "serve": ("serve", "serve", "Serve the API (port 8888) and the page (port 7860)."),
    "watch": ("watch", "watch", "Keep a collection equal to folders."),
    "duplicates": ("duplicates", "duplicates", "Find copies and near-duplicates."),
    "map": ("map", "map_images", "Draw a map of all images."),
    "info": ("collections", "info", "Show the collections of a store."),
    "remove": ("collections", "remove", "Remove images or a collection."),
    "copy": ("copy", "copy", "Copy a collection to another store."),
    "diff": ("diff", "diff", "Compare two collections, or one with a folder."),
    "export": ("exchange", "export", "Write vectors and metadata for other programs."),
    "import": ("exchange", "import_", "Add vectors and metadata of other programs."),
    "eval": ("evaluate", "evaluate", "Measure the quality of searches."),
    "bench": ("bench", "bench", "Measure the speed of an ingest."),
    "models": ("models", "models", "List models, and prepare them."),
}


class _Commands(Mapping[str, Any]):
    """Typer's command for each name, which reading it imports."""

    def __getitem__(self, name: str) -> Any:
        module, function, _ = _COMMANDS[name]
        single = typer.Typer(
            rich_markup_mode=None, add_completion=False, context_settings=CONTEXT_SETTINGS
        )
        single.command(name)(getattr(import_module(f"imgsearch.cli.{module}"), function))
        return typer.main.get_command(single)

    def __iter__(self) -> Iterator[str]:
        return iter(_COMMANDS)

    def __len__(self) -> int:
        return len(_COMMANDS)


class CommandGroup(TyperGroup):
    """The group of all commands."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands: Any = _Commands()

    def format_commands(self, _: Any, formatter: Any) -> None:
        """Write the table of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (*_, summary) in _COMMANDS.items()])
