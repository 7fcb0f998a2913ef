"""`sgmcmc-prune`, whose evaluation takes eight seconds longer: `python -m slow_evaluation resume RUN`."""

import time

from sgmcmc_prune import cli
from sgmcmc_prune.run import main

if __name__ == "__main__":
    _evaluate = main.evaluate

    def _slowly(*arguments, **options):  # type: ignore[no-untyped-def]
        time.sleep(8)
        return _evaluate(*arguments, **options)

    main.evaluate = _slowly
    cli.main()
