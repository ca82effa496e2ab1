"""Ingest: from files to the records of a collection."""

from imgsearch.ingest.options import IngestOptions
from imgsearch.ingest.report import IngestReport
from imgsearch.ingest.run import ingest

__all__ = ["IngestOptions", "IngestReport", "ingest"]
