"""Modules that are imported when they are first used.

Every worker of pytest-xdist collects all test files, but only one runs those that need torch, which
takes seconds to import.
"""

import importlib
from typing import Any


class _Lazily:
    _mock_name = None  # pytest asks each global of a test file for it

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):  # pytest asks for these, too
            raise AttributeError(attribute)
        return getattr(importlib.import_module(self._name), attribute)


def lazily(name: str) -> Any:
    """Return what stands for the module `name`: it has the attributes of the module.

    They can only be read: monkeypatch.setattr takes the path of what it replaces.
    """
    return _Lazily(name)
