"""The errors a user can cause and mend; the command line prints their one line without a traceback."""


class SegLadderError(Exception):
    """A fault the user can mend; its text names the file, key or id, what was expected and what to do."""


class ConfigError(SegLadderError):
    """The configuration asks for something that does not exist or does not fit together."""


class DataError(SegLadderError):
    """A file of the data set is missing, damaged or holds what it may not hold."""
