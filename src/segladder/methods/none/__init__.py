"""Methods without labels: clusters of pixels or segments, named by an oracle."""
