"""Generate pages of the documentation: commands, HTTP endpoints, and the tree of modules.

python -m tools.reference    # writes them to docs/reference/
"""

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from imgsearch.cli import app as cli

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "reference"


def command_line() -> str:
    """Return the page about every command and option, in Markdown."""
    top: Any = typer.main.get_command(cli)
    lines = [
        "# Command line",
        "",
        top.help,
        "",
        "```text",
        "imgsearch COMMAND [OPTIONS]",
        "```",
        "",
    ]
    for name, command in top.commands.items():
        lines += _command(name, command)
    return "\n".join(lines) + "\n"


def _command(name: str, command: Any) -> Iterator[str]:
    yield f"## {name}"
    yield ""
    yield inspect.cleandoc(command.help)
    yield ""
    with typer.Context(command, info_name=f"imgsearch {name}") as context:
        arguments = [each for each in command.params if each.param_type_name == "argument"]
        options = [each for each in command.params if each.param_type_name == "option"]
        yield "```text"
        yield f"imgsearch {name} {' '.join(command.collect_usage_pieces(context))}"
        yield "```"
        yield ""
        for title, params in (("Argument", arguments), ("Option", options)):
            if not params:
                continue
            yield f"| {title} | Description |"
            yield "|---|---|"
            for param in params:
                yield f"| {_names(param, context)} | {_description(param)} |"
            yield ""


def _names(param: Any, context: Any) -> str:
    if param.param_type_name == "argument":
        return f"`{param.make_metavar(context)}`"
    names = ", ".join(f"`{each}`" for each in param.opts)
    return names if param.is_flag else f"{names} `{_cell(param.make_metavar(context))}`"


def _description(param: Any) -> str:
    text = _cell(" ".join(inspect.cleandoc(param.help).split()))
    default = param.default
    shown = param.required is False and not param.is_flag if hasattr(param, "is_flag") else False
    if shown and isinstance(default, (int, float, str)) and default != "":
        text += f" Default: `{default}`."
    return text + (" Required." if param.required else "")


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("<", r"\<")


def endpoints() -> str:
    """Return the page about every HTTP endpoint, in Markdown."""
    from imgsearch.server.app import create_app
    from imgsearch.server.service import Service
    from imgsearch.server.settings import Settings

    description = create_app(Service(Settings())).openapi()
    groups: dict[str, list[str]] = {}
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            rows = groups.setdefault((operation.get("tags") or ["other"])[0], [])
            rows += _endpoint(method, path, operation, description)
    lines = [
        "# HTTP endpoints",
        "",
        "A running service shows the same description, with all schemas, at `/docs` and",
        "`/openapi.json`. [Service and HTTP API](../service.md) explains how to use them.",
        "",
    ]
    for group, rows in groups.items():
        lines += [f"## {group.capitalize()}", "", *rows]
    lines += ["## Errors", "", "Errors are `application/problem+json` (RFC 9457).", ""]
    lines += ["| Status | Meaning |", "|---|---|"]
    lines += [f"| {status} | {_cell(text)} |" for status, text in _errors(description)]
    return "\n".join(lines) + "\n"


def _endpoint(method: str, path: str, operation: Any, description: Any) -> Iterator[str]:
    yield f"### `{method.upper()} {path}`"
    yield ""
    yield operation.get("description") or operation.get("summary") or ""
    yield ""
    fields = [
        (each["name"], each["in"], each.get("required", False), each.get("description", ""))
        for each in operation.get("parameters", ())
        if each["in"] != "path"
    ]
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        schema = _resolved(content["schema"], description)
        place = {"application/json": "JSON"}.get(kind, "form")
        for name, field in schema.get("properties", {}).items():
            required = name in schema.get("required", ())
            fields.append((name, place, required, field.get("description", "")))
    if fields:
        yield "| Field | In | Description |"
        yield "|---|---|---|"
        for name, place, required, text in fields:
            note = _cell(" ".join(text.split())) + (" Required." if required else "")
            yield f"| `{name}` | {place} | {note} |"
        yield ""
    success = [status for status in operation.get("responses", {}) if status.startswith("2")]
    yield f"Returns {', '.join(success)}."
    yield ""


def _errors(description: Any) -> list[tuple[str, str]]:
    found = {
        status: answer["description"]
        for operations in description["paths"].values()
        for operation in operations.values()
        for status, answer in operation["responses"].items()
        if status >= "400"
    }
    return sorted(found.items())


def _resolved(schema: Any, description: Any) -> Any:
    if "$ref" in schema:
        return description["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def module_tree() -> str:
    """Return the package's modules, each with the first line of its docstring, as Markdown."""
    package = ROOT / "imgsearch"
    lines = ["# Modules", "", "Generated from the first line of each module's docstring.", ""]
    for folder in sorted({path.parent for path in package.rglob("*.py")}):
        name = folder.relative_to(ROOT).as_posix()
        lines += [f"## {name}/", "", _summary(folder / "__init__.py"), ""]
        modules = sorted(path for path in folder.glob("*.py") if path.name != "__init__.py")
        if modules:
            lines += ["| Module | Purpose |", "|---|---|"]
            lines += [f"| `{each.name}` | {_cell(_summary(each))} |" for each in modules]
            lines += [""]
    return "\n".join(lines) + "\n"


def _summary(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) if path.exists() else None
    return " ".join((text or "").partition("\n\n")[0].split())


def main() -> None:
    """Write all pages."""
    for name, page in (("cli", command_line), ("http", endpoints), ("modules", module_tree)):
        (FOLDER / f"{name}.md").write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
