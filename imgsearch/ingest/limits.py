"""Limits of the pipeline: how many files it holds, and for how long."""

LOOKUP_FILES = 512
"""Files per lookup in the store."""
WRITE_ROWS = 512
"""Records per write."""
WRITE_SECONDS = 2.0
"""Maximum age of results that are not written yet: what a killed run can lose."""
ALERT_SECONDS = 0.5
"""How soon a stage notices that another one failed while the sources yield nothing."""
MAX_IN_FLIGHT = 64
"""Maximum number of batches that are encoded at the same time."""
