"""Everything that can go wrong, as one tree. Each message says what failed and what to do.

ImgsearchError                      exit code 1
├── UsageError                      exit code 2: the command's words are wrong
├── SourceError                     a folder, file or list that was named cannot be read
│   └── NothingFoundError           the sources hold no picture at all
├── ImageError                      one picture cannot be used; the run goes on without it
├── MetadataError                   the CSV cannot be read, or does not fit the collection
├── EncoderError
│   ├── UnknownModelError           no model of this name
│   ├── WeightsError                weights missing, not to be fetched, damaged, or not fitting
│   ├── DeviceError                 the device that was asked for is not there
│   ├── DeviceMemoryError           a batch does not fit; a smaller one may
│   ├── UnreadableModelError        a model's file is in no format that its runtime can read
│   ├── ExportError                 torch cannot export the model, or its vectors would differ
│   └── MissingTorchError           torch would be needed, and is not installed
├── ScratchError                    no room for temporary files, or no right to write them
├── ServeError                      the service cannot listen where it should
└── StoreError
    ├── CollectionNotFoundError     no collection of this name in the store
    ├── CollectionMismatchError     the collection was made by another model or configuration
    ├── StaleCollectionError        it was replaced or removed since it was opened
    ├── RecordNotFoundError         no record of this id
    ├── StoreBusyError              another process is writing
    ├── StoreFullError              it has no room for more
    └── VerificationError           the store does not hold what was written to it

The core raises these and never exits; `imgsearch.cli` turns them into exit codes in one place.
They are part of the Python API. A message says what is wrong and which limit or argument is
concerned, but names no option of a command: `remedies` lists what may help, for each front end to
put into its own words.
"""

from enum import Enum


class Remedy(Enum):
    """A way out of an error."""

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
    """A model that was exported for ONNX Runtime already, which needs no torch."""
    LIST_MODELS = "list-models"
    USE_OTHER_COLLECTION = "use-other-collection"
    CALIBRATE_OTHER_COLLECTION = "calibrate-other-collection"
    """Ingest the images of the first ingest, in int8, into another collection."""
    REPLACE = "replace"
    """Embed the collection again, with the settings asked for."""
    REPLACE_IN_INT8 = "replace-in-int8"
    INGEST = "ingest"
    COPY = "copy"
    """Copy the collection into a new one."""
    COPY_TO_OTHER_NAME = "copy-to-other-name"
    PRUNE = "prune"
    REMOVE = "remove"


def first_line(error: BaseException) -> str:
    """What another library's error says, without the pages that some add."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


class ImgsearchError(Exception):
    """Base of all errors that users see as one line, without a traceback.

    `remedies` are alternatives, the most likely first.
    """

    exit_code = 1

    def __init__(self, message: str = "", *remedies: Remedy) -> None:
        super().__init__(message)
        self.remedies = remedies


class UsageError(ImgsearchError):
    """The command's words are wrong."""

    exit_code = 2


class SourceError(ImgsearchError):
    """A source that was named cannot be read."""


class NothingFoundError(SourceError):
    """The sources hold no picture at all."""


class ImageError(ImgsearchError):
    """One picture cannot be used; the message is the reason, without the path."""


class MetadataError(ImgsearchError):
    """The metadata file cannot be read, or does not fit the collection."""


class EncoderError(ImgsearchError):
    """Base of what goes wrong with models."""


class UnknownModelError(EncoderError):
    """No model of this name."""


class WeightsError(EncoderError):
    """Weights are missing, cannot be fetched, are damaged, or do not fit the model."""


class DeviceError(EncoderError):
    """The device that was asked for is not there."""


class DeviceMemoryError(EncoderError):
    """A batch does not fit into the device's memory; a smaller one may."""


class UnreadableModelError(EncoderError):
    """A model's file was read, and its content is in no format that its runtime knows."""


class ExportError(EncoderError):
    """The model cannot be exported for ONNX Runtime, or its vectors would not be torch's."""


class MissingTorchError(EncoderError):
    """torch, or what goes with it, would be needed, and this installation is without it."""


class ScratchError(ImgsearchError):
    """Temporary files cannot be written: the disk is full, or its folder is read-only or gone."""


class ServeError(ImgsearchError):
    """The service cannot listen where it should."""


class StoreError(ImgsearchError):
    """Base of what goes wrong with stores."""


class CollectionNotFoundError(StoreError):
    """No collection of this name in the store."""


class CollectionMismatchError(StoreError):
    """The collection was made by another model or configuration than the one asked for."""


class StaleCollectionError(StoreError):
    """The collection was replaced or removed since it was opened; opened anew, it may be there."""


class RecordNotFoundError(StoreError):
    """The collection has no record of this id."""


def no_record(collection: str, record_id: str) -> RecordNotFoundError:
    """Return the error to raise for an unknown id."""
    return RecordNotFoundError(f"collection {collection} has no record {record_id}")


class StoreBusyError(StoreError):
    """Another process is writing to the collection."""


class StoreFullError(StoreError):
    """The store has no room for more. What was in it before is kept."""


class VerificationError(StoreError):
    """The store does not hold what was written to it."""
