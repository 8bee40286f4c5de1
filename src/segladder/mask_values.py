"""The value of a mask that is no class, and what pixels of classes out of use become."""

from typing import Literal

IGNORE = 255  # neither trained on nor scored: void, unlabelled or too uncertain
OtherClasses = Literal["ignore", "background"]  # what pixels of classes that are not in use become
