"""Exchange vectors and records with other programs: export and import files."""

from imgsearch.exchange.exporting import ExportReport, export
from imgsearch.exchange.importing import ImportOptions, ImportReport, import_vectors

__all__ = ["ExportReport", "ImportOptions", "ImportReport", "export", "import_vectors"]
