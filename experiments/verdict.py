"""Whether a paper's ordering of methods holds here: paired differences of neighbours in it, with intervals.

holds          every neighbour is ahead of the next one, outside the 95 % interval of their difference by seed
contradicted   some neighbour is behind the next one, outside that interval
open           neither: seeds do not tell some neighbours apart, or there is but one seed
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sgmcmc_prune.predictive.intervals import mean_and_half_width

Answer = Literal["holds", "contradicted", "open"]


@dataclass(frozen=True)
class Difference:
    """A method minus the next one in the paper's order: mean over seeds, and half of the 95 % interval (NaN: none)."""

    ahead: str
    behind: str
    mean: float
    half: float
    seeds: int

    @property
    def answer(self) -> Answer:
        """What this difference says of the order."""
        if math.isnan(self.half) or abs(self.mean) <= self.half:
            return "open"
        return "holds" if self.mean > 0 else "contradicted"


def differences(order: Sequence[str], scores: Mapping[str, Mapping[int, float]]) -> list[Difference]:
    """The differences of neighbours, over the seeds that both have.

    Parameters
    ----------
    order : sequence of str
        Methods, the paper's best first.
    scores : mapping of str to mapping of int to float
        Of each method by seed, higher = better.

    Raises
    ------
    ValueError
        If a method of the order has no score, or two neighbours share no seed.
    """
    if absent := [name for name in order if not scores.get(name)]:
        raise ValueError(f"there is no score of {', '.join(absent)}, which the order names")
    found = []
    for ahead, behind in itertools.pairwise(order):
        seeds = sorted(scores[ahead].keys() & scores[behind].keys())
        if not seeds:
            raise ValueError(f"{ahead} and {behind} have no seed in common; their difference is paired by seed")
        mean, half = mean_and_half_width([scores[ahead][seed] - scores[behind][seed] for seed in seeds])
        found.append(Difference(ahead, behind, float(mean), float(half) if len(seeds) > 1 else math.nan, len(seeds)))
    return found


def verdict(found: Sequence[Difference]) -> Answer:
    """What the differences say together."""
    answers = {difference.answer for difference in found}
    if "contradicted" in answers:
        return "contradicted"
    return "open" if "open" in answers or not answers else "holds"


def sentences(where: str, found: Sequence[Difference]) -> str:
    """The verdict and its differences in words."""
    each = "; ".join(
        f"{d.ahead} minus {d.behind} {d.mean:+.4f}"
        + (" (one seed)" if math.isnan(d.half) else f" ± {d.half:.4f} ({d.seeds} seeds)")
        for d in found
    )
    said = {"holds": "holds", "contradicted": "is contradicted", "open": "is open"}[verdict(found)]
    return f"{where}: the paper's order {said}: {each}."
