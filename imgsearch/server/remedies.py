"""Error messages of the service: the core's message, and what may help."""

from imgsearch.errors import ImgsearchError, Remedy

# Clients and the operator read them: the options are those of `imgsearch serve`. What only another
# command's options change is left out.
_WORDS = {
    Remedy.RAISE_MAX_PIXELS: "the service's --max-pixels sets it",
    Remedy.RAISE_STORE_TIMEOUT: "start the service with a longer --store-timeout",
    Remedy.LEAVE_OUT_WEIGHTS: "start the service without --weights",
    Remedy.GIVE_WEIGHTS: "give the service a file with --weights",
    Remedy.USE_CPU: "start the service with --device cpu",
    Remedy.INGEST: "create one with `imgsearch ingest`",
    Remedy.COPY: "copy it with `imgsearch copy --as NAME`",
    Remedy.REMOVE: "take images out with `imgsearch remove`",
}


def message(error: ImgsearchError) -> str:
    """Return the error's message followed by its remedies, if the service has any."""
    remedies = [_WORDS[each] for each in error.remedies if each in _WORDS]
    return f"{error}; {', or '.join(remedies)}" if remedies else str(error)
