"""The one error of our own: a run that failed (bad input raises `ValueError` or `TypeError`)."""


class RunError(RuntimeError):
    """A run that could not go on, in one line a person can act on; what was stored before is intact."""
