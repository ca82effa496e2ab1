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
They are part of the Python API.
"""


def first_line(error: BaseException) -> str:
    """What another library's error says, without the pages that some add."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


class ImgsearchError(Exception):
    """Base of all errors that are told to the user in one line, without a traceback."""

    exit_code = 1


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


class StoreBusyError(StoreError):
    """Another process is writing to the collection."""


class StoreFullError(StoreError):
    """The store has no room for more. What was in it before is kept."""


class VerificationError(StoreError):
    """The store does not hold what was written to it."""
