"""What can go wrong when a model is brought in; every message says what to do.

ModelError
├── CheckpointError   the checkpoint cannot be read, is refused, or holds a model that is not supported
├── RepositoryError   the model cannot be put into the repository
└── FetchError        the checkpoint cannot be downloaded
"""


class ModelError(Exception):
    """An error that the user can do something about."""


class CheckpointError(ModelError, ValueError):
    """The file cannot be used."""


class RepositoryError(ModelError, ValueError):
    """The name is taken or not allowed, the skeleton does not fit, or the folder cannot be written."""


class FetchError(ModelError):
    """Unknown name, network trouble, or another file than expected."""
