"""Background ingests of many uploads."""
