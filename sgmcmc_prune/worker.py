"""One chain of a run, through all its stages: `python -m sgmcmc_prune.worker RUN THREADS CHAIN`.

Started by `chains.processes`, never by hand. Exit codes: 0 finished, 3 interrupted with everything saved, 1 failed (the
reason is the last line on standard error).
"""

import os
import sys
import threading
from pathlib import Path

import torch

from sgmcmc_prune import build
from sgmcmc_prune.chains.loop import Interrupted
from sgmcmc_prune.chains.processes import INTERRUPTED, LineBar
from sgmcmc_prune.errors import RunError
from sgmcmc_prune.stages import load_config, take_chain


def main(arguments: list[str]) -> int:
    """Run the chain; return the exit code."""
    out, threads, index = Path(arguments[0]), int(arguments[1]), int(arguments[2])
    torch.set_num_threads(threads)
    sys.path.insert(0, str(Path.cwd()))
    threading.Thread(target=end_with_parent, daemon=True).start()
    bar = LineBar()
    try:
        config = load_config(out)
        take_chain(config, build.load_data(config), out, index, bar)
    except Interrupted:
        return INTERRUPTED
    except (RunError, ValueError, TypeError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        bar.close()
    return 0


def end_with_parent() -> None:
    """The parent holds our standard input open as long as it lives."""
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
