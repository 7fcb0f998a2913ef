"""How a chain does while it runs: the score of its network on validation examples, in the bar and in a CSV file.

Looking changes nothing of the chain: the network is passed forward in evaluation mode, and random generators are left
as they were. With batch normalisation it uses the running statistics, which lag behind the weights. The test split is
never looked at.
"""

import csv
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from sgmcmc_prune.chains.chain import Chain
from sgmcmc_prune.chains.schedules import Plan
from sgmcmc_prune.likelihoods import ObservationModel
from sgmcmc_prune.predictive.predict import outputs_of

#: Seconds between two looks at least, and how many times longer than a look the time between two is.
SECONDS, RARELY = 10.0, 50.0
#: Examples that are looked at.
EXAMPLES = 1000


class Monitor:
    """Scores the networks of chains now and then.

    Parameters
    ----------
    likelihood : ObservationModel
    inputs, targets : Tensor
        Validation examples, of which the first 1,000 are taken.
    unit : float
        Of the targets.
    place : callable
        From a chain's number to its CSV file; rows are appended.
    """

    def __init__(
        self, likelihood: ObservationModel, inputs: Tensor, targets: Tensor, unit: float, place: Callable[[int], Path]
    ) -> None:
        self.likelihood, self.unit, self.place = likelihood, unit, place
        self.inputs, self.targets = inputs[:EXAMPLES], targets[:EXAMPLES]
        self.began = time.monotonic()
        self._next, self._text = dict[int, float](), dict[int, str]()

    def look(self, chain: Chain, plan: Plan, sparsity: float) -> str:
        """The newest score of a chain in words, ` validation accuracy 0.891`; looked at anew where it is time."""
        began = time.monotonic()
        if began >= self._next.get(chain.index, 0.0):
            self._text[chain.index] = self._looked(chain, plan, sparsity)
            now = time.monotonic()
            self._next[chain.index] = now + max(SECONDS, RARELY * (now - began))
        return self._text[chain.index]

    def _looked(self, chain: Chain, plan: Plan, sparsity: float) -> str:
        try:
            with torch.random.fork_rng(devices=[]):
                outputs = outputs_of(chain.model, self.inputs[:])
        except ValueError:  # not finite: the chain diverges, and says so itself
            return " validation not finite"
        scores = self.likelihood.score_single(self.likelihood.prediction(outputs), self.targets, self.unit)
        self._append(chain, plan, sparsity, scores)
        name, value = next(iter(scores.items()))
        return f" validation {self.likelihood.headings[name]} {value:.3f}"

    def _append(self, chain: Chain, plan: Plan, sparsity: float, scores: dict[str, float]) -> None:
        path = self.place(chain.index)
        path.parent.mkdir(parents=True, exist_ok=True)
        row = {
            "seconds": round(time.monotonic() - self.began, 1),
            "step": chain.step,
            "phase": plan.phase,
            "loss": f"{chain.loss:.6g}",
            "sparsity": f"{sparsity:.4g}",
            **{name: f"{value:.6g}" for name, value in scores.items()},
        }
        new = not path.is_file()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)
