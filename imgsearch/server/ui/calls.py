"""The functions of the page as Gradio's clients call them, and what they accept.

Gradio answers a call with arguments of a wrong type by a 500, and prints where it failed.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from imgsearch.server.errors import ApiError, not_found

if TYPE_CHECKING:
    import gradio as gr
    from gradio.block_function import BlockFunction

_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "string": str,
    "number": (int, float),
    "integer": int,
    "boolean": bool,
    "array": list,
    "object": dict,
}
# Their functions take any JSON: what Gradio declares of `gr.HTML` is only its usual value.
_ANY_JSON = frozenset({"html", "json"})
_MISSING = object()


class Functions:
    """The functions of a page by name or number."""

    def __init__(self, blocks: "gr.Blocks") -> None:
        self._blocks = blocks
        self._endpoints: Mapping[str, Any] = {}

    def find(self, name: str | None, index: Any, session: str | None) -> "BlockFunction":
        """Return the function with an index, or else with a name. Raises ApiError (404)."""
        blocks = self._blocks
        known = blocks.state_holder[session].blocks_config.fns if session else blocks.fns
        if index is None:
            found = next((each for each in known.values() if each.api_name == name), None)
        else:
            found = known.get(index) if type(index) is int else None
        if found is None or found.fn is None:
            raise not_found("unknown-function", "the page has no such function")
        return found

    def positional(self, name: str, given: Mapping[str, Any]) -> list[Any]:
        """Return the arguments of a public function in order. Raises ApiError (404 or 422)."""
        self._endpoints = self._endpoints or self._blocks.get_api_info()["named_endpoints"]
        endpoint = self._endpoints.get(f"/{name}")
        if endpoint is None:
            raise not_found("unknown-function", "the page has no such function")
        parameters = {each["parameter_name"]: each for each in endpoint["parameters"]}
        if unknown := given.keys() - parameters.keys():
            raise _invalid(f"no such argument: {min(unknown)[:100]!r}")
        values = []
        for each, parameter in parameters.items():
            default = parameter["parameter_default"]
            value = given.get(each, default if parameter["parameter_has_default"] else _MISSING)
            if value is _MISSING:
                raise _invalid(f"argument {each!r} is missing")
            values.append(value)
        return values


def check_arguments(function: "BlockFunction", values: Any, *, public: bool) -> None:
    """Raise ApiError (422) for arguments that are no JSON of the types of a function's inputs.

    With `public`, only the inputs that clients other than the page see.
    """
    inputs: Sequence[Any] = function.inputs
    if public:
        inputs = [each for each in inputs if not each.skip_api]
    if not isinstance(values, list) or len(values) != len(inputs):
        raise _invalid(f"data must be a list of {len(inputs)} arguments")
    for number, (value, block) in enumerate(zip(values, inputs, strict=True), 1):
        kind = block.get_block_name()
        if kind in _ANY_JSON or (value is None and kind != "api"):
            continue
        if not _fits(value, block.api_info()):
            raise _invalid(f"argument {number} has a wrong type")


def _fits(value: Any, schema: Mapping[str, Any]) -> bool:
    """Return whether a value is of the type of a JSON schema, as far as Gradio's own go."""
    if choices := schema.get("oneOf") or schema.get("anyOf"):
        return any(_fits(value, each) for each in choices)
    kind = schema.get("type")
    if "path" in schema.get("properties", {}):  # a file
        return isinstance(value, dict) and isinstance(value.get("path"), str)
    if kind == "null":
        return value is None
    if not isinstance(kind, str) or kind not in _TYPES:
        return True
    if not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "boolean"):
        return False
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, list):
        return all(_fits(each, schema.get("items", {})) for each in value)
    return True


def _invalid(detail: str) -> ApiError:
    return ApiError(422, "invalid-request", detail)
