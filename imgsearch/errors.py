"""The errors of imgsearch, which are part of the Python API.

```
ImgsearchError                      exit code 1
├── UsageError                      exit code 2: an argument or a combination is invalid
├── SourceError                     a folder, file or list cannot be read
│   └── NothingFoundError           the sources contain no image
├── ImageError                      an image cannot be read or decoded; an ingest skips it
├── MetadataError                   metadata cannot be read, or does not fit the collection
├── EncoderError
│   ├── UnknownModelError           there is no model of this name
│   ├── MissingEncoderError         another program made the vectors, and imgsearch cannot
│   ├── WeightsError                weights are missing, damaged, or do not fit the model
│   ├── DeviceError                 the requested device is not available
│   ├── DeviceMemoryError           a batch does not fit into memory; a smaller one may
│   ├── UnreadableModelError        the runtime cannot read a model file
│   ├── ExportError                 the model cannot be exported, or its vectors would differ
│   └── MissingTorchError           torch is required, and is not installed
├── MissingLibraryError             a library of an extra is required, and is not installed
├── ScratchError                    temporary files cannot be written
├── ClusterError                    the cluster cannot be reached, or its nodes cannot do their part
├── ServeError                      the service cannot listen on its address
└── StoreError
    ├── CollectionNotFoundError     there is no collection of this name
    ├── CollectionMismatchError     the collection was made with another model or configuration
    ├── StaleCollectionError        the collection was replaced or removed since it was opened
    ├── RecordNotFoundError         there is no record with this id
    ├── StoreBusyError              another process is writing
    ├── StoreFullError              the store is full
    └── VerificationError           the store does not contain what was written
```

The core raises these errors and never exits; `imgsearch.cli` maps them to exit codes. A message
says what is wrong, and which limit or argument is involved, but names no command-line option.
`remedies` lists what may help, and each front end puts it into its own words.
"""

from enum import Enum


class Remedy(Enum):
    """A possible solution of a problem."""

    RAISE_MAX_PIXELS = "raise-max-pixels"
    RAISE_STORE_TIMEOUT = "raise-store-timeout"
    NAME_ONE_MODEL = "name-one-model"
    GIVE_WEIGHTS = "give-weights"
    LEAVE_OUT_MODEL = "leave-out-model"
    LEAVE_OUT_WEIGHTS = "leave-out-weights"
    LEAVE_OUT_PRECISION = "leave-out-precision"
    LEAVE_OUT_DEVICE = "leave-out-device"
    USE_CPU = "use-cpu"
    USE_FP32 = "use-fp32"
    USE_BUNDLED_MODEL = "use-bundled-model"
    """A model whose weights are installed with imgsearch."""
    USE_EXPORTED_MODEL = "use-exported-model"
    """A model that has already been exported for ONNX Runtime, which needs no torch."""
    LIST_MODELS = "list-models"
    USE_OTHER_COLLECTION = "use-other-collection"
    CALIBRATE_OTHER_COLLECTION = "calibrate-other-collection"
    """Ingest the images of the first ingest, in int8, into another collection."""
    REPLACE = "replace"
    """Embed all images of the collection again, with the requested settings."""
    REPLACE_IN_INT8 = "replace-in-int8"
    LEAVE_OUT_VECTOR_DTYPE = "leave-out-vector-dtype"
    REPLACE_VECTORS = "replace-vectors"
    """Convert the stored vectors to the requested number format, in place."""
    COPY_VECTORS = "copy-vectors"
    """Copy the collection into a new one with the requested number format."""
    INGEST = "ingest"
    COPY = "copy"
    """Copy the collection into a new one."""
    COPY_TO_OTHER_NAME = "copy-to-other-name"
    PRUNE = "prune"
    REMOVE = "remove"
    SEARCH_BY_RECORD = "search-by-record"
    SEARCH_BY_VECTOR = "search-by-vector"
    NAME_THE_MODEL_OF_VECTORS = "name-the-model-of-vectors"
    """Say which model made the vectors that are imported."""
    NAME_THE_TABLE = "name-the-table"
    """Say which table has a row for each vector."""
    NAME_THE_VECTOR_COLUMN = "name-the-vector-column"
    NAME_THE_FOLDER_OF_IMAGES = "name-the-folder-of-images"
    INSTALL_MAP = "install-map"
    """Install the libraries of the map, which are an extra."""
    INSTALL_RAY = "install-ray"
    """Install Ray, which is an extra."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type if it has none."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


class ImgsearchError(Exception):
    """Base class of all errors. Its message is one line for the user.

    `remedies` are alternatives, the most likely first.
    """

    exit_code = 1

    def __init__(self, message: str = "", *remedies: Remedy) -> None:
        super().__init__(message)
        self.remedies = remedies


class UsageError(ImgsearchError):
    """An argument, or a combination of arguments, is invalid."""

    exit_code = 2


class SourceError(ImgsearchError):
    """A source cannot be read."""


class NothingFoundError(SourceError):
    """The sources contain no image."""


class ImageError(ImgsearchError):
    """An image cannot be read or decoded. The message is the reason, without the path."""


class MetadataError(ImgsearchError):
    """Metadata cannot be read, or does not fit the collection."""


class EncoderError(ImgsearchError):
    """Base class of errors of models."""


class UnknownModelError(EncoderError):
    """There is no model of this name."""


class MissingEncoderError(EncoderError):
    """The vectors of the collection were made by another program, and cannot be made here."""


class WeightsError(EncoderError):
    """Weights are missing, cannot be downloaded, are damaged, or do not fit the model."""


class DeviceError(EncoderError):
    """The requested device is not available."""


class DeviceMemoryError(EncoderError):
    """A batch does not fit into the device's memory; a smaller one may."""


class UnreadableModelError(EncoderError):
    """A model file can be read, but not by the runtime, which does not support its format."""


class ExportError(EncoderError):
    """A model cannot be exported for ONNX Runtime, or its vectors would differ from torch's."""


class MissingTorchError(EncoderError):
    """torch or one of its companion packages is required, and is not installed."""


class MissingLibraryError(ImgsearchError):
    """A library that only one feature needs is not installed."""


class ScratchError(ImgsearchError):
    """Temporary files cannot be written: the disk is full, or the folder is read-only or gone."""


class ClusterError(ImgsearchError):
    """The cluster cannot be reached, or its nodes cannot do their part of an ingest."""


class ServeError(ImgsearchError):
    """The service cannot listen on its address."""


class StoreError(ImgsearchError):
    """Base class of errors of stores."""


class CollectionNotFoundError(StoreError):
    """The store has no collection of this name."""


class CollectionMismatchError(StoreError):
    """The collection was made with another model or configuration than the requested one."""


class StaleCollectionError(StoreError):
    """The collection was replaced or removed since it was opened; opening it again may help."""


class RecordNotFoundError(StoreError):
    """The collection has no record with this id."""


def no_record(collection: str, record_id: str) -> RecordNotFoundError:
    """Return the error to raise for an unknown id."""
    return RecordNotFoundError(f"collection {collection} has no record {record_id}")


class StoreBusyError(StoreError):
    """Another process is writing to the collection."""


class StoreFullError(StoreError):
    """The store is full. What it contained before is unchanged."""


class VerificationError(StoreError):
    """The store does not contain what was written to it."""
