"""Translate the errors of Lance."""

import contextlib
import re
from collections.abc import Iterator

from imgsearch.errors import StaleCollectionError, StoreError, StoreFullError
from imgsearch.stores.lance.arrow import pa


@contextlib.contextmanager
def translate_errors(problem: str) -> Iterator[None]:
    """Raise what Lance raises as a StoreError that begins with `problem`.

    Lance raises OSError, ValueError and RuntimeError, and adds a source line of Rust to the text.
    """
    try:
        yield
    except (OSError, ValueError, RuntimeError, pa.ArrowException) as error:
        text = _readable(str(error))
        if "No space left" in text or "StorageFull" in text:
            raise StoreFullError(
                f"{problem}: the disk is full ({text[:120]}). Records written before are safe: "
                "free some space and try again"
            ) from error
        # The dataset was deleted, or files of a version were cleaned up.
        kind = StaleCollectionError if "Not found: " in text else StoreError
        raise kind(f"{problem}: {text[:400]}") from error


def _readable(text: str) -> str:
    text = re.sub(r",? ?(/rustc)?/?[\w./-]*\.rs:\d+:\d+", "", text)
    return " ".join(text.split())
