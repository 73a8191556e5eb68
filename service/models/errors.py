"""Errors of adding a model; every message says what to do.

ModelError
├── CheckpointError   the checkpoint cannot be read, is refused, or holds a model that is not supported
├── RepositoryError   the model cannot be put into the repository
├── FetchError        the checkpoint cannot be downloaded
└── EngineError       a TensorRT plan cannot be built, or does not fit this machine
    └── AccuracyError the plan was built, and does not give what its graph gives
"""


class ModelError(Exception):
    """An error that the user can correct."""


class CheckpointError(ModelError, ValueError):
    """The file cannot be used."""


class RepositoryError(ModelError, ValueError):
    """The name is taken or not allowed, the skeleton does not fit, or the folder cannot be written."""


class FetchError(ModelError):
    """Unknown name, network trouble, or another file than expected."""


class EngineError(ModelError):
    """The graph cannot be built, or the plan was made for another GPU or TensorRT, or is damaged."""


class AccuracyError(EngineError):
    """The plan's results are too far from those of its graph; it was not published."""
