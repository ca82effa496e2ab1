"""Split texts into words for text search, in the same way for records and queries.

Stores receive the words, not the text, and only split at spaces. So all stores agree on what
matches, and no character with a meaning in a query language reaches one.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator

from imgsearch.errors import UsageError
from imgsearch.types import Metadata

# Limits: words of a query, letters of a word.
MAX_QUERY_WORDS = 64
_MAX_WORD_LETTERS = 40

# Accents and apostrophes, so that men's becomes a plural like any other.
_MARKS = "[\u0300-\u036f'\u2019]"
# Scripts that put no space between words: each letter is a word of its own.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff"
# Compiled on first use, as a query by image does not need it.
_WORD = rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+"

# Lucene's list for English, ignored where a query has other words.
_STOP_WORDS = frozenset(
    {
        *("a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in", "into", "is"),
        *("it", "no", "not", "of", "on", "or", "such", "that", "the", "their", "then", "there"),
        *("these", "they", "this", "to", "was", "will", "with"),
    }
)


def record_words(metadata: Metadata) -> str:
    """Return the words of all text values of a record, in order, separated by spaces."""
    texts = (value for value in metadata.values() if isinstance(value, str))
    return " ".join(word for text in texts for word in _words(text))


def query_words(text: str) -> list[str]:
    """Return the distinct words of a query. Raises UsageError if there is none.

    Leaves out stop words if there are other words, and all words after the first 64.
    """
    words = list(dict.fromkeys(_words(text)))
    if not words:
        raise UsageError(f"{text[:40]!r} holds no word to search for")
    significant = [word for word in words if word not in _STOP_WORDS]
    return (significant or words)[:MAX_QUERY_WORDS]


def _words(text: str) -> Iterator[str]:
    """Yield normalized words: without case, accents and English plurals."""
    apart = unicodedata.normalize("NFKD", text).casefold()
    plain = unicodedata.normalize("NFC", re.sub(_MARKS, "", apart))
    yield from _singular(re.findall(_WORD, plain))


def _singular(words: Iterable[str]) -> Iterator[str]:
    """Yield singulars by Harman's S stemmer (1991), which also handles watches and dresses."""
    for word in words:
        short = word
        if len(word) > 3 and word.isascii() and word.isalpha():
            if word.endswith("ies") and not word.endswith(("eies", "aies")):
                short = word[:-3] + "y"
            elif word.endswith(("sses", "shes", "ches", "xes", "zes")):
                short = word[:-2]
            elif word.endswith("s") and not word.endswith(("us", "ss")):
                short = word[:-1]
        yield short[:_MAX_WORD_LETTERS]
