"""Models that turn images into vectors; `factory.open_encoder` opens one."""
