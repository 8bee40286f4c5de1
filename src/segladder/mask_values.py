"""What a value of a mask says where it is no class."""

IGNORE = 255  # neither trained on nor scored: void, unlabelled or too uncertain
