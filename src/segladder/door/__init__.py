"""What stands behind the Python door: a run as a model, methods and data for other trainers, exported weights."""
