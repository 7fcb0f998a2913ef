"""One chain of a run, through all its stages: `python -m sgmcmc_prune.run.worker run RUN THREADS CHAIN`.

With `measure` for `run` it writes nothing, and a few of its steps are timed. Started by `chains.processes` and by
`chains.execution`, never by hand. Exit codes: 0 finished, 3 interrupted with everything saved, 1 failed (the reason is
the last line on standard error).
"""

import sys
from contextlib import redirect_stdout
from pathlib import Path

from sgmcmc_prune.chains.execution import be_measured
from sgmcmc_prune.chains.processes import reporting, work
from sgmcmc_prune.run.directory import open_run
from sgmcmc_prune.run.stages import measurable_chain, take_chain


def main(arguments: list[str]) -> int:
    """Run the chain; return the exit code."""
    what, out, threads, index = arguments[0], Path(arguments[1]), int(arguments[2]), int(arguments[3])
    return work(lambda: (measure if what == "measure" else take)(out, index), threads)


def take(out: Path, index: int) -> None:
    """Take the chain through all its stages, and report in lines."""
    with reporting() as bar:
        try:
            take_chain(open_run(out), index, bar)
        finally:
            bar.close()


def measure(out: Path, index: int) -> None:
    """Take a few steps from the chain's start while other processes do the same, and say what they took."""
    with redirect_stdout(sys.stderr):  # a user's module may print when it is imported
        chain = measurable_chain(open_run(out), index)
    be_measured(chain.advance)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
