"""A run on disk and in memory: its folder, how it is built, fitted, scored, written and loaded."""
