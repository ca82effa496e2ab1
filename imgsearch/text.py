"""Texts as words to search by: the same for what is stored and for what is asked, in every store.

Stores are given the words, not the text, and only ever split at the space between them. So they
agree on what matches, and no sign that has a meaning in a query language reaches one.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator

from imgsearch.errors import UsageError
from imgsearch.types import Metadata

# The most words of a query that count; and of a word, the letters.
MOST_QUERY_WORDS = 64
_LONGEST_WORD = 40

# Accents, and apostrophes: men's is the plural of men's like any other.
_MARKS = "[\u0300-\u036f'\u2019]"
# Scripts that put no space between words: each letter is a word of its own.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff"
# Compiled when they are first needed, as a query by a picture has no need of them.
_WORD = rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+"

# Lucene's list for English: they say nothing, as long as other words do.
_STOP_WORDS = frozenset(
    {
        *("a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in", "into", "is"),
        *("it", "no", "not", "of", "on", "or", "such", "that", "the", "their", "then", "there"),
        *("these", "they", "this", "to", "was", "will", "with"),
    }
)


def record_words(metadata: Metadata) -> str:
    """The words of all texts among a record's values, in their order, with a space between."""
    texts = (value for value in metadata.values() if isinstance(value, str))
    return " ".join(word for text in texts for word in _words(text))


def query_words(text: str) -> list[str]:
    """The distinct words to search by. Raises UsageError if there is none.

    Stop words are left out where there are others, and all beyond the first 64.
    """
    words = list(dict.fromkeys(_words(text)))
    if not words:
        raise UsageError(f"{text[:40]!r} holds no word to search for")
    telling = [word for word in words if word not in _STOP_WORDS]
    return (telling or words)[:MOST_QUERY_WORDS]


def _words(text: str) -> Iterator[str]:
    """Words as they are compared: without case, accents and English plurals."""
    apart = unicodedata.normalize("NFKD", text).casefold()
    plain = unicodedata.normalize("NFC", re.sub(_MARKS, "", apart))
    yield from _singular(re.findall(_WORD, plain))


def _singular(words: Iterable[str]) -> Iterator[str]:
    """Harman's S stemmer (1991), which also takes watches and dresses for plurals."""
    for word in words:
        short = word
        if len(word) > 3 and word.isascii() and word.isalpha():
            if word.endswith("ies") and not word.endswith(("eies", "aies")):
                short = word[:-3] + "y"
            elif word.endswith(("sses", "shes", "ches", "xes", "zes")):
                short = word[:-2]
            elif word.endswith("s") and not word.endswith(("us", "ss")):
                short = word[:-1]
        yield short[:_LONGEST_WORD]
