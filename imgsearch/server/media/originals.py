"""The files of records as they are served: by record alone, and only what was indexed."""

import os
from dataclasses import dataclass
from typing import BinaryIO

from imgsearch import images
from imgsearch.errors import ImageError
from imgsearch.server.errors import RefusedError
from imgsearch.types import ImageRecord

CHUNK = 1 << 18


@dataclass(frozen=True, slots=True)
class PictureFile:
    """An open file that holds a picture; whoever gets it closes it. `size` in bytes."""

    file: BinaryIO
    media_type: str
    size: int
    mtime_ns: int

    @property
    def etag(self) -> str:
        return f'"{self.mtime_ns:x}-{self.size:x}"'


def open_picture(record: ImageRecord) -> PictureFile:
    """The file of a record.

    What is checked is what is read: the file is opened once, so that none can be put in its place
    in between. Raises RefusedError if it is gone, or is no longer the image that was indexed.
    """
    if record.site or not record.uri.startswith("file:"):
        raise _gone(record, "is not on this machine")
    try:
        file = images.open_original(record)
    except images.ChangedError as error:
        raise _gone(record, "has been changed or replaced since it was indexed") from error
    except (OSError, ImageError) as error:
        raise _gone(record, "is gone, or cannot be read") from error
    try:
        media_type = images.media_type(file)
        status = os.fstat(file.fileno())
    except (OSError, ImageError) as error:
        file.close()
        raise _gone(record, "is no longer an image") from error
    return PictureFile(file, media_type, status.st_size, status.st_mtime_ns)


def read_picture(record: ImageRecord, most: int) -> bytes:
    """The file of a record, whole, if it has at most so many bytes. Raises RefusedError."""
    picture = open_picture(record)
    with picture.file:
        if picture.size > most:
            raise RefusedError(413, "too-large", f"the image of record {record.id} is too large")
        return picture.file.read(picture.size)


def _gone(record: ImageRecord, what: str) -> RefusedError:
    return RefusedError(404, "picture-gone", f"the image of record {record.id} {what}")
