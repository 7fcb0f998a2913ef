"""Where data sets are looked for when the caller names no folder."""

import os
from pathlib import Path


def named_folders() -> list[Path]:
    """The folder in `$SGMCMC_PRUNE_DATA`, if it is set; ValueError if there is no such folder."""
    named = os.environ.get("SGMCMC_PRUNE_DATA")
    if named and not Path(named).expanduser().is_dir():
        raise ValueError(
            f"$SGMCMC_PRUNE_DATA is {named!r}, which is no folder; name the one with the data, or unset it"
        )
    return [Path(named).expanduser()] if named else []


def cache_dir(name: str) -> Path:
    """The user's cache folder of one data set: under `$XDG_CACHE_HOME`, or `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "sgmcmc_prune" / name
