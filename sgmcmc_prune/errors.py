"""The errors of our own: a run that failed, or was stopped. Bad input raises `ValueError` or `TypeError`."""

import signal


def first_line(error: BaseException) -> str:
    """What an error says in one line: its first, or its type if it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]


class RunError(RuntimeError):
    """A run that could not go on, in one line a person can act on; what was stored before is intact."""


class Interrupted(BaseException):
    """A signal asked the run to stop; everything is saved. No handler of errors swallows it.

    Parameters
    ----------
    number : int
        The signal; SIGTERM if another process received it.
    """

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__(f"stopped by signal {number}")
        self.number = int(number)

    @property
    def exit_code(self) -> int:
        """What a shell or a scheduler expects: 130 after SIGINT, 143 after SIGTERM."""
        return 128 + self.number
