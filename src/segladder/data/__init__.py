"""Reading data sets from disk and feeding them, with no more labels than a run may see."""
