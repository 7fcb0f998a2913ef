"""The errors of our own: a run that failed, or was stopped. Bad input raises `ValueError` or `TypeError`."""


class RunError(RuntimeError):
    """A run that could not go on, in one line a person can act on; what was stored before is intact."""


class Interrupted(Exception):
    """A signal asked the run to stop; everything is saved."""
