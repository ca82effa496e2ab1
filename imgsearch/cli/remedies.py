"""Error messages of the command line: the core's message, and the options that may help."""

from imgsearch.config import ENV_PRECISION
from imgsearch.errors import ImgsearchError, Remedy

_WORDS = {
    Remedy.RAISE_MAX_PIXELS: "raise the limit with --max-pixels",
    Remedy.RAISE_STORE_TIMEOUT: "wait longer with --store-timeout",
    Remedy.NAME_ONE_MODEL: "name it with --model",
    Remedy.GIVE_WEIGHTS: "give a file with --weights",
    Remedy.LEAVE_OUT_MODEL: "omit --model",
    Remedy.LEAVE_OUT_WEIGHTS: "omit --weights",
    Remedy.LEAVE_OUT_PRECISION: f"omit --precision (or {ENV_PRECISION})",
    Remedy.LEAVE_OUT_DEVICE: "omit --device",
    Remedy.USE_CPU: "use --device cpu",
    Remedy.USE_FP32: "use --precision fp32",
    Remedy.USE_BUNDLED_MODEL: "use --model efficientnet-lite0, which needs no download",
    Remedy.USE_EXPORTED_MODEL: "use a model that `imgsearch models` lists as exported",
    Remedy.LIST_MODELS: "list the known models with `imgsearch models --all`",
    Remedy.USE_OTHER_COLLECTION: "use another --collection",
    Remedy.CALIBRATE_OTHER_COLLECTION: "ingest the images of the first ingest again into another "
    "--collection with --precision int8",
    Remedy.REPLACE: "embed all images again with --replace",
    Remedy.REPLACE_IN_INT8: "embed all images again with --replace --precision int8",
    Remedy.LEAVE_OUT_VECTOR_DTYPE: "omit --vector-dtype",
    Remedy.REPLACE_VECTORS: "convert it with --replace, which encodes no unchanged image",
    Remedy.COPY_VECTORS: "copy it with `imgsearch copy --as NAME --vector-dtype DTYPE`",
    Remedy.INGEST: "create one with `imgsearch ingest`",
    Remedy.COPY: "copy it with `imgsearch copy --as NAME`",
    Remedy.COPY_TO_OTHER_NAME: "choose another name with --as",
    Remedy.PRUNE: "remove deleted files with --prune",
    Remedy.REMOVE: "remove images with `imgsearch remove`",
    Remedy.SEARCH_BY_RECORD: "search with an image of the collection by --record ID",
    Remedy.SEARCH_BY_VECTOR: "with a vector of that model by --vector FILE.npy",
    Remedy.NAME_THE_MODEL_OF_VECTORS: "name it with --model-name",
    Remedy.NAME_THE_TABLE: "name it with --table",
    Remedy.NAME_THE_VECTOR_COLUMN: "name it with --vector-column",
    Remedy.NAME_THE_FOLDER_OF_IMAGES: "name the folder of the images with --images",
    Remedy.INSTALL_MAP: "install it with `pip install 'imgsearch-cli[map]'`",
    Remedy.INSTALL_RAY: "install it with `pip install 'imgsearch-cli[ray]'`",
}


def message(error: ImgsearchError) -> str:
    """Return the error's message followed by its remedies, if it has any."""
    if not error.remedies:
        return str(error)
    return f"{error}; {', or '.join(_WORDS[each] for each in error.remedies)}"
