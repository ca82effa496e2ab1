"""Keep a collection equal to folders while they change."""

from imgsearch.watching.run import WatchOptions, watch

__all__ = ["WatchOptions", "watch"]
