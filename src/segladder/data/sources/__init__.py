"""Data sets on disk, one file each, and how their files are decoded."""
