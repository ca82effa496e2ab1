"""Every imported package is declared as a dependency."""

import ast
import itertools
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tools.lowest import TESTS

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# A namespace package of several distributions.
NAMESPACES = {"google": ["protobuf"]}
# Packages of extras, which may not be installed, by other names than their distributions.
NAMESPACES |= {"sklearn": ["scikit-learn"]}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def names(requirements: list[str]) -> set[str]:
    return {canonical(re.split(r"[\[<>=!~ ;]", each)[0]) for each in requirements}


def imported(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield each file with the top-level names of the other packages that it imports."""
    # _typeshed exists only for type checkers.
    own = {"_typeshed", *(path.name for path in ROOT.iterdir())}
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules: list[str] = []
            if isinstance(node, ast.Import):
                modules = [each.name for each in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                modules = [node.module or ""]
            for module in modules:
                top = module.partition(".")[0]
                if top not in sys.stdlib_module_names and top not in own:
                    yield path, top


@pytest.mark.parametrize(
    ("folder", "extras"),
    [("imgsearch", {"heic", "map", "raw", "ray"}), ("tests", {"dev", "ray"}), ("tools", {"dev"})],
)
def test_all_imports_are_declared(folder: str, extras: set[str]) -> None:
    declared = names(PROJECT["dependencies"])
    for extra, requirements in PROJECT["optional-dependencies"].items():
        if extra in extras:
            declared |= names(requirements)
    known = {**packages_distributions(), **NAMESPACES}
    undeclared = {
        f"{path.relative_to(ROOT)}: {module}"
        for path, module in imported(ROOT / folder)
        if not {canonical(each) for each in known.get(module, [module])} & declared
    }
    assert undeclared == set()


def test_tests_run_with_the_lowest_versions_exist() -> None:
    assert [each for each in TESTS if not (ROOT / each).is_file()] == []


def test_every_declared_package_has_a_lower_bound() -> None:
    """`make test-lowest` installs these versions."""
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    assert [each for group in groups for each in group if ">=" not in each] == []


def _contributing(heading: str) -> list[str]:
    """Return the lines of the code block under a heading of CONTRIBUTING.md."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    block = re.search(rf"^## {heading}$.*?^```text\n(.*?)^```$", text, re.S | re.M)
    assert block
    return block[1].splitlines()


def _unit(module: str) -> str:
    """Return the top-level module or package in imgsearch, such as `stores`."""
    return module.split(".")[1]


def _imports() -> Iterator[tuple[str, str]]:
    """Yield pairs of units of imgsearch: the importing and the imported one."""
    for path in (ROOT / "imgsearch").rglob("*.py"):
        here = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if _unit(here) in ("__init__", "__main__"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules: list[str] = []
            if isinstance(node, ast.Import):
                modules = [each.name for each in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module == "imgsearch":
                modules = [f"imgsearch.{each.name}" for each in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [node.module or ""]
            for module in modules:
                if module.startswith("imgsearch.") and not _unit(module).startswith("_"):
                    yield _unit(here), _unit(module)


def test_imports_point_up_in_the_table_of_contributing() -> None:
    table = _contributing("Who may import whom")
    layer = {unit: number for number, line in enumerate(table) for unit in line.split()}
    pairs = set(_imports())
    assert len(pairs) > 100
    assert [pair for pair in pairs if layer[pair[0]] < layer[pair[1]]] == []
    assert not {("encoders", "stores"), ("stores", "encoders")} & pairs


def test_contributing_draws_the_tree_as_it_is() -> None:
    drawn = re.findall(r"(?:^  |  )([a-z_]+(?:\.py|/))  ", "\n".join(_tree("imgsearch/")), re.M)
    package = ROOT / "imgsearch"
    there = {f"{path.name}/" for path in package.iterdir() if (path / "__init__.py").exists()}
    there |= {path.name for path in package.glob("[a-z]*.py")}
    assert sorted(drawn) == sorted(there)
    for folder in ("tools/", "benchmarks/", "examples/"):
        assert _tree(folder), folder
        assert (ROOT / folder).is_dir()


def _tree(folder: str) -> list[str]:
    """Return the lines of a folder in the tree that CONTRIBUTING.md draws."""
    lines = _contributing("Where things are")
    start = next(number for number, line in enumerate(lines) if line.startswith(folder))
    rest = lines[start + 1 :]
    return [lines[start], *itertools.takewhile(lambda line: line.startswith(" "), rest)]
