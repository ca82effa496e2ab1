"""Ingest: from files to records of a collection."""
