"""Splitting of texts into words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgsearch.errors import UsageError
from imgsearch.text import MAX_QUERY_WORDS, query_words, record_words
from imgsearch.types import Metadata


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Casual Shoes", "casual shoe"),
        ("T-Shirts, men's dresses; watches/boxes", "t shirt men dress watch box"),
        ("glass bus ladies", "glass bus lady"),
        ("Café Müller", "cafe muller"),
        ("STRASSE straße", "strasse"),
        ("\ufb01ne İstanbul", "fine istanbul"),
        ("red_dress 50% (2012)", "red dress 50 2012"),
        ('+red -blue field:value "a phrase" * ~', "red blue field value phrase"),
        ("красное платье", "красное платье"),
        ("한국어", "한국어"),
        ("红鞋", "红 鞋"),
        ("the of", "the of"),
        ("the red shoe of a king", "red shoe king"),
        ("red Red RED", "red"),
        ("x" * 1000, "x" * 40),
    ],
)
def test_a_query_is_split_into_words(text: str, words: str) -> None:
    assert query_words(text) == words.split()


@pytest.mark.parametrize("text", ["", "  ", "?!", "___", "\0"])
def test_a_text_without_words_cannot_be_searched_for(text: str) -> None:
    with pytest.raises(UsageError, match="no word"):
        query_words(text)


def test_a_long_query_is_truncated() -> None:
    assert len(query_words(" ".join(map(str, range(10_000))))) == MAX_QUERY_WORDS


def test_a_record_has_only_the_words_of_its_texts() -> None:
    texts: Metadata = {"kind": "Casual Shoes", "description": "Red, the red"}
    assert record_words({"year": 2012, **texts, "new": True}) == "casual shoe red the red"
    assert record_words({"year": 2012}) == ""


@given(st.text())
def test_a_record_is_found_by_its_own_words(text: str) -> None:
    stored = record_words({"text": text})
    assert record_words({"text": stored}) == stored
    if stored:
        assert set(query_words(text)) <= set(stored.split(" "))
