"""Every imported package is declared as a dependency."""

import ast
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
    ("folder", "extras"), [("imgsearch", {"heic", "raw"}), ("tests", {"dev"}), ("tools", {"dev"})]
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
