"""`bench store`: what EM, the running averages and the store cost, as a share of a run's time.

A short run on the shipped data is timed piece by piece: the pieces are wrapped, not re-implemented.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

from sgmcmc_prune.chains.chain import Chain
from sgmcmc_prune.chains.loop import Stage
from sgmcmc_prune.machine import timing
from sgmcmc_prune.priors.em import EM
from sgmcmc_prune.run.main import run
from sgmcmc_prune.run.presets import PRESETS
from sgmcmc_prune.settings import replace
from sgmcmc_prune.text_table import format_rows

#: What is timed: the label, and the method that does it.
PIECES = {
    "EM": (EM, "update"),
    "inclusion and moments": (Chain, "_collect"),
    "store and records": (Stage, "_write"),
    "checkpoints": (Stage, "_save"),
}


def bench_store(progress: bool = True) -> dict[str, Any]:
    """Time the pieces of one chain of the demo.

    Returns
    -------
    dict
        `machine`, `seconds` of the chain and `rows`: piece, seconds, share.
    """
    seconds = dict.fromkeys(PIECES, 0.0)
    config = replace(PRESETS["demo"](), chains=1, **{"prune.in_chain": (), "prune.post_hoc": ()})
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        with _timed(seconds), mock.patch("sgmcmc_prune.run.main.evaluate", side_effect=_Stop), suppress(_Stop):
            run(config, Path(folder) / "run", progress=progress)
        total = time.perf_counter() - began
    rows = [{"piece": name, "seconds": s, "share": s / total} for name, s in seconds.items()]
    return {"bench": "store", "machine": timing.machine(), "seconds": total, "rows": rows}


class _Stop(Exception):
    """The chains are done; the evaluation is not part of the measurement."""


@contextmanager
def _timed(seconds: dict[str, float]) -> Iterator[None]:
    """Add up the time that each piece takes, outermost calls only."""
    patches = [
        mock.patch.object(owner, method, _timing(getattr(owner, method), seconds, name))
        for name, (owner, method) in PIECES.items()
    ]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()


def _timing(method: Callable[..., Any], seconds: dict[str, float], name: str) -> Callable[..., Any]:
    def timed(*arguments: Any, **named: Any) -> Any:
        began = time.perf_counter()
        try:
            return method(*arguments, **named)
        finally:
            seconds[name] += time.perf_counter() - began

    return timed


def table(result: dict[str, Any]) -> str:
    """The result as aligned text."""
    rows = [[r["piece"], f"{r['seconds']:.2f}", f"{r['share']:.1%}"] for r in result["rows"]]
    together = sum(r["seconds"] for r in result["rows"])
    rows.append(["together", f"{together:.2f}", f"{together / result['seconds']:.1%}"])
    return format_rows(("piece", "seconds", f"share of {result['seconds']:.1f} s"), rows)
