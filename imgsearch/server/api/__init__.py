"""The HTTP endpoints: `/v1`, those of image-search, health and the documentation."""
