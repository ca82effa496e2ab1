"""Parsing of conditions, their meaning, and errors."""

import math
import string
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgsearch.errors import UsageError
from imgsearch.filters import parse_value, parse_where
from imgsearch.types import FIELD_TYPES, Condition, FieldType, Operator, Value

FIELDS: dict[str, FieldType] = {
    "year": "int",
    "price": "float",
    "inStock": "bool",
    "articleType": "str",
    "base color": "str",
}


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("articleType=Casual Shoes", Condition("articleType", "=", "Casual Shoes")),
        ("articleType==Shirts", Condition("articleType", "=", "Shirts")),
        (" year >= 2012 ", Condition("year", ">=", 2012)),
        ("year<2012", Condition("year", "<", 2012)),
        ("year!=-5", Condition("year", "!=", -5)),
        ("price<=9.5", Condition("price", "<=", 9.5)),
        ("price>1e3", Condition("price", ">", 1000.0)),
        ("inStock=TRUE", Condition("inStock", "=", True)),
        ("inStock!=false", Condition("inStock", "!=", False)),
        ("base color=Navy Blue", Condition("base color", "=", "Navy Blue")),
        ("ARTICLETYPE=Shirts", Condition("articleType", "=", "Shirts")),
        ("articleType=a=b<c>!=d", Condition("articleType", "=", "a=b<c>!=d")),
        ('articleType=it\'s "50%"', Condition("articleType", "=", 'it\'s "50%"')),
        ("articleType=", Condition("articleType", "=", "")),
        ("articleType=two\nlines", Condition("articleType", "=", "two\nlines")),
    ],
)
def test_a_value_is_parsed_as_its_fields_type(text: str, condition: Condition) -> None:
    (parsed,) = parse_where([text], FIELDS)
    assert parsed == condition
    assert type(parsed.value) is type(condition.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("year", "condition 'year': write it as FIELD OP VALUE"),
        ("", "write it as FIELD OP VALUE"),
        ("=2012", "write it as FIELD OP VALUE"),
        ("year!2012", "write it as FIELD OP VALUE"),
        ("color=Red", "no field 'color' to filter by; the collection has articleType, "),
        ("year=soon", "year is of type int, and 'soon' is not"),
        ("year=2012.5", "year is of type int, and '2012.5' is not"),
        ("year=9223372036854775808", "year is of type int"),
        ("year=" + "9" * 5000, "year is of type int"),
        ("year=٢٠١٢", "year is of type int"),
        ("price=nan", "price is of type float, and 'nan' is not"),
        ("price=1_000", "price is of type float"),
        ("price=1e999", "price is of type float"),
        ("inStock=yes", "inStock is of type bool, and 'yes' is not"),
        ("inStock>true", "inStock is true or false: compare it with = or !="),
    ],
)
def test_an_invalid_condition_is_an_error(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_where([text], FIELDS)
    assert message in str(caught.value)
    assert caught.value.exit_code == 2


def test_without_fields_the_message_says_why() -> None:
    with pytest.raises(UsageError, match="none: it was ingested without metadata"):
        parse_where(["a=1"], {})


def test_case_matters_if_several_fields_differ_only_in_case() -> None:
    fields: dict[str, FieldType] = {"Size": "int", "size": "str"}
    assert parse_where(["size=1", "Size=1"], fields) == [
        Condition("size", "=", "1"),
        Condition("Size", "=", 1),
    ]
    with pytest.raises(UsageError, match="no field 'SIZE'"):
        parse_where(["SIZE=1"], fields)


# Properties

VALUES: dict[FieldType, st.SearchStrategy[Value]] = {
    "int": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(allow_nan=False, allow_infinity=False),
    "bool": st.booleans(),
    "str": st.text(st.characters(exclude_categories=["Cs"])).map(str.strip),
}
FIELD_NAMES = st.text(
    st.characters(exclude_characters="=!<>", exclude_categories=["Cs"]), min_size=1
).filter(lambda name: name == name.strip())
TYPED = st.sampled_from(FIELD_TYPES).flatmap(
    lambda kind: st.tuples(st.just(kind), VALUES[kind], VALUES[kind])
)


@given(name=FIELD_NAMES, typed=TYPED, operator=st.sampled_from(get_args(Operator)))
def test_a_formatted_condition_is_parsed_back(
    name: str, typed: tuple[FieldType, Value, Value], operator: Operator
) -> None:
    kind, value, other = typed
    if kind == "bool" and operator not in ("=", "!="):
        return
    # `a=` + `=b` would be parsed as `a` `==` `b` without the space.
    (condition,) = parse_where([f"{name}{operator} {value}"], {name: kind})
    assert condition == Condition(name, operator, value)
    assert type(condition.value) is type(value)

    for have in (value, other):
        means = {
            "=": have == value,
            "!=": have != value,
            "<": have < value,  # type: ignore[operator]
            "<=": have <= value,  # type: ignore[operator]
            ">": have > value,  # type: ignore[operator]
            ">=": have >= value,  # type: ignore[operator]
        }
        assert condition.holds({name: have}) == means[operator]
    assert condition.holds({}) == (operator == "!=")


@given(st.text(), st.sampled_from(FIELD_TYPES))
def test_a_parsed_value_has_the_requested_type(text: str, kind: FieldType) -> None:
    value = parse_value(text, kind)
    types = {"int": int, "float": float, "bool": bool, "str": str}
    assert value is None or type(value) is types[kind]
    if isinstance(value, float):
        assert math.isfinite(value)


@given(st.text(string.printable))
def test_any_text_is_parsed_or_rejected(text: str) -> None:
    try:
        (condition,) = parse_where([text], FIELDS)
    except UsageError:
        return
    assert condition.field in FIELDS
