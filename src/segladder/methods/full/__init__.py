"""Methods that learn from a mask for every training image."""
