"""The methods, a folder per kind of supervision, a file per method."""
