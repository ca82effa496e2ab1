"""Translate the errors of Lance."""

import contextlib
import re
from collections.abc import Iterator

from imgsearch.errors import StaleCollectionError, StoreError, StoreFullError
from imgsearch.objects import ObjectError
from imgsearch.stores.lance.arrow import pa

_OF_OBJECTS = re.compile(r"Generic (S3|GCS|MicrosoftAzure) error|Error performing [A-Z]+ http")
_ADVICE = (
    "Check that the bucket exists, that the endpoint answers, and that the credentials allow to "
    "read and write there, then try again: what was written before is safe"
)


@contextlib.contextmanager
def translate_errors(problem: str) -> Iterator[None]:
    """Raise what Lance raises as a StoreError that begins with `problem`.

    Lance raises OSError, ValueError and RuntimeError, and adds a source line of Rust to the text.
    """
    try:
        yield
    except (OSError, ValueError, RuntimeError, pa.ArrowException) as error:
        text = _readable((isinstance(error, ObjectError) and error.strerror) or str(error))
        if isinstance(error, ObjectError) or _OF_OBJECTS.search(text):
            problem, text = f"{problem} in object storage", f"{_brief(text)}. {_ADVICE}"
        if "No space left" in text or "StorageFull" in text:
            raise StoreFullError(
                f"{problem}: the disk is full ({text[:120]}). Records written before are safe: "
                "free some space and try again"
            ) from error
        # The dataset was deleted, or files of a version were cleaned up.
        kind = StaleCollectionError if "Not found: " in text else StoreError
        raise kind(f"{problem}: {text[:400]}") from error


def _brief(text: str) -> str:
    """Return the reason of a failed request, without queries, which may hold a signature."""
    text = re.sub(r"(https?://)[^\s/@]*@", r"\1", text.partition("<?xml")[0])
    return re.sub(r"\?\S*", "", text).strip(" .:-")[:250]


def _readable(text: str) -> str:
    text = re.sub(r",? ?(/rustc)?/?[\w./-]*\.rs:\d+:\d+", "", text)
    return " ".join(text.split())
