"""Benchmark an ingest on this machine: `run` measures `stages`, and makes a `report`."""
