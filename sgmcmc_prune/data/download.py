"""Download one file: the first mirror that answers, verified, and written whole or not at all."""

from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from urllib.request import urlopen

from sgmcmc_prune.data.idx import uncompressed, verify
from sgmcmc_prune.errors import RunError
from sgmcmc_prune.store.files import atomic_path

_TIMEOUT_SECONDS = 60


def download(urls: Sequence[str], target: Path, sha256: str, compressed: bool = False) -> None:
    """Fetch a file from the first of several mirrors that answers.

    Parameters
    ----------
    urls : sequence of str
        Addresses of the same file, tried in this order.
    target : Path
        Where the file goes; its folder is made if need be.
    sha256 : str
        Checksum of the uncompressed file (hexadecimal).
    compressed : bool
        The checksum is that of the file as it is, compressed or not.

    Raises
    ------
    ValueError
        If the file that came is corrupt or has another checksum; nothing is written then.
    RunError
        If no mirror answers.
    """
    failures = []
    for url in urls:
        try:
            with urlopen(url, timeout=_TIMEOUT_SECONDS) as response:
                data = response.read()
        except (OSError, HTTPException) as error:
            failures.append(f"{url} ({error})")
            continue
        if compressed:
            verify(data, url, sha256)
        else:
            uncompressed(data, url, sha256)
        with atomic_path(target) as partial:
            partial.write_bytes(data)
        return
    raise RunError(f"{target.name} could not be downloaded from {' nor '.join(failures)}")
