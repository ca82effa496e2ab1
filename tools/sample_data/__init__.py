"""Draw the images of sample_data, which belong to this project: `python -m tools.sample_data`."""
