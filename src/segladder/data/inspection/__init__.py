"""Looking at a data set: checks, audits, previews, and bringing VOC and SBD into shape."""
