"""Methods that learn from image-level tags: a file each."""
