"""Which of several processes does a piece of work: one file, a byte of it locked for each piece.

Processes on one machine, or on many that share a file system, take pieces from one list. A lock ends with its process,
however that ends, so that what a dead one had begun is free for the others.
"""

import errno
import fcntl
import hashlib
import os
from pathlib import Path

#: Bytes that names are spread over; two names that meet merely wait for each other.
_PLACES = 2**40


class Claims:
    """The pieces that this process has taken; they are known by their names.

    Parameters
    ----------
    path : Path
        The file; made at the first claim, and left there. A process opens it once: POSIX locks belong to a process, and
        end when it closes the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None

    def take(self, name: str) -> bool:
        """Claim a piece of work; False if another process has it.

        Raises
        ------
        ValueError
            If the file cannot be written, or its file system offers no locks.
        """
        if self._file is None:
            self._file = self._opened()
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _place(name))
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            raise ValueError(
                f"{self.path}: its file system offers no locks ({error.strerror}); choose a folder on another"
            ) from None
        return True

    def _opened(self) -> int:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise ValueError(f"{self.path} cannot be written ({error.strerror}); choose another folder") from None

    def release(self, name: str) -> None:
        """Let another process have it."""
        assert self._file is not None
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _place(name))

    def close(self) -> None:
        """Release everything."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _place(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode(errors="surrogatepass")).digest()[:8], "little") % _PLACES
