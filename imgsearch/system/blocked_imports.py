"""Import libraries without their optional dependencies, which cost start-up time."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from types import ModuleType


class _Blocker(MetaPathFinder):
    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def find_spec(
        self,
        name: str,
        path: Sequence[str] | None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> None:
        if name in self._names:
            raise ModuleNotFoundError("blocked by imgsearch", name=name)


@contextmanager
def block_imports(*names: str) -> Iterator[None]:
    """Within the context, importing a module of these names raises ModuleNotFoundError."""
    finder = _Blocker(names)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
