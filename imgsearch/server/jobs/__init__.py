"""Background ingests of uploads."""
