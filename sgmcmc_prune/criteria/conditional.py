"""Joint evidence: what a set of weights costs once the others have moved. It needs the data, and scores nothing here.

The ranking and the moves are in `pruning/conditional`; a run makes them when its draws are finished.
"""

from typing import Any, ClassVar

from sgmcmc_prune.criteria.base import Criterion


class Conditional(Criterion):
    """Weights or groups of finished draws, removed by joint evidence, with every draw moved by the same conditional."""

    kept_by_chains: ClassVar[bool] = True
    moves: ClassVar[bool] = True

    def refused(self, config: Any) -> str:
        """It is taken post hoc."""
        if "conditional" in config.prune.in_chain:
            return "criterion conditional moves finished draws; name it in prune.post_hoc, not in prune.in_chain"
        return ""
