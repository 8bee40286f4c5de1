"""What a value of a mask says where it is no class."""

from typing import Literal

IGNORE = 255  # neither trained on nor scored: void, unlabelled or too uncertain
OtherClasses = Literal["ignore", "background"]  # what pixels of classes that are not in use become
