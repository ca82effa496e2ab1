"""Images and thumbnails as they are served."""
