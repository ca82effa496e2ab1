"""Limits of the pipeline: how many files it holds, and for how long."""

LOOKUP_FILES = 2048
"""Files per lookup in the store: a lookup of 512 takes half as long."""
REUSE_FILES = 512
"""Maximum number of files per question for known content: as quick as for 32."""
REUSE_BYTES = 16 << 20
"""Bytes of files per question for known content, if there is more than one batch for the model."""
RECENT_VECTORS = 2048
"""Stored vectors that a run retains for further copies of the same images: 16 MB of 2048 values."""
WRITE_ROWS = 512
"""Records per write."""
WRITE_SECONDS = 2.0
"""Maximum age of results that are not written yet: what a killed run can lose."""
ALERT_SECONDS = 0.5
"""How soon a stage notices that another one failed while the sources yield nothing."""
MAX_IN_FLIGHT = 64
"""Maximum number of batches that are encoded at the same time."""
OBJECT_READS = 64
"""Objects that are read at the same time: with a latency of 50 ms, up to 1,280 a second."""
AWAY_READS = 128
"""Objects in a row that a store may fail to give: twice as many as are read at once."""
