"""How a chain does while it runs: now and then a row of numbers, for the bar, a CSV file and, if wanted, TensorBoard.

A row has the loss, the kinetic temperature, the score of the network on validation examples where there are any, the
effective sample size so far, and the seconds left. Looking changes nothing of the chain: the network is passed forward
in evaluation mode, and random generators are left as they were. With batch normalisation it uses the running
statistics, which lag behind the weights. The test split is never looked at.

The effective sample size is that of this chain alone, of the draws that have been written: the smallest bulk ESS over
the network's outputs at the first probes. It says nothing about whether chains agree.
"""

import csv
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sgmcmc_prune.chains.chain import Chain
from sgmcmc_prune.chains.schedules import Plan
from sgmcmc_prune.diagnostics.ess import MIN_DRAWS_ESS, ess
from sgmcmc_prune.likelihoods import ObservationModel
from sgmcmc_prune.predictive.predict import outputs_of

#: Seconds between two looks at least, and how many times longer than a look the time between two is.
SECONDS, RARELY = 10.0, 50.0
#: Examples that are looked at, and probes whose outputs have an effective sample size.
EXAMPLES, PROBES = 1000, 8


class Monitor:
    """Looks at chains now and then.

    Parameters
    ----------
    likelihood : ObservationModel
    examples : pair of Tensor
        Validation inputs and targets, of which the first 1,000 are taken; there may be none.
    unit : float
        Of the targets.
    drawn : callable
        From a chain's number to the network's outputs at the probes in the draws so far: (draw, probe, output).
    place : callable
        From a chain's number to its CSV file; rows are appended.
    tensorboard : bool
        Write the same numbers for TensorBoard, into a folder beside the CSV file.
    """

    def __init__(
        self,
        likelihood: ObservationModel,
        examples: tuple[Tensor, Tensor],
        unit: float,
        drawn: Callable[[int], np.ndarray],
        place: Callable[[int], Path],
        tensorboard: bool = False,
    ) -> None:
        self.likelihood, self.unit, self.drawn, self.place = likelihood, unit, drawn, place
        inputs, self.targets = examples[0], examples[1][:EXAMPLES]
        self.inputs = inputs[:EXAMPLES] if len(self.targets) else inputs  # of no pictures none can be read
        self.began, self.tensorboard = time.monotonic(), tensorboard
        self._first, self._writers = dict[int, tuple[float, int]](), dict[int, Any]()
        self._next, self._text = dict[int, float](), dict[int, str]()

    def look(self, chain: Chain, plan: Plan, record: Mapping[str, Any]) -> str:
        """The newest score and ESS of a chain in words, ` validation accuracy 0.891 ESS 95`; anew where it is time.

        Parameters
        ----------
        chain : Chain
        plan : Plan
            Of its last step.
        record : mapping
            What the trace has of that step.
        """
        began = time.monotonic()
        if began >= self._next.get(chain.index, 0.0) or chain.finished:
            self._text[chain.index] = self._looked(chain, plan, record)
            now = time.monotonic()
            self._next[chain.index] = now + max(SECONDS, RARELY * (now - began))
        return self._text[chain.index]

    def _looked(self, chain: Chain, plan: Plan, record: Mapping[str, Any]) -> str:
        try:
            scores = self._scores(chain)
        except ValueError:  # not finite: the chain diverges, and says so itself
            return " validation not finite"
        size = ess_so_far(self.drawn(chain.index))
        numbers = {
            "loss": chain.loss,
            "kinetic_temperature": record["kinetic_temperature"],
            "sparsity": record["sparsity"],
            **scores,
            "ess": size,
            "seconds_left": self._seconds_left(chain),
        }
        self._append(chain, plan, numbers)
        if self.tensorboard:
            self._write_events(chain, numbers)
        said = [f"validation {self.likelihood.headings[name]} {value:.3f}" for name, value in list(scores.items())[:1]]
        return "".join(f" {text}" for text in [*said, *([f"ESS {size:.0f}"] if math.isfinite(size) else [])])

    def _scores(self, chain: Chain) -> dict[str, float]:
        """Of the network as it is; ValueError if its outputs are not finite."""
        if not len(self.targets):
            return {}
        with torch.random.fork_rng(devices=[]):
            outputs = outputs_of(chain.model, self.inputs[:])
        return self.likelihood.score_single(self.likelihood.prediction(outputs), self.targets, self.unit)

    def _seconds_left(self, chain: Chain) -> float:
        """Of this chain in this stage, at its speed since it was first looked at; NaN at that time."""
        now = time.monotonic()
        began, step = self._first.setdefault(chain.index, (now, chain.step))
        if chain.step == step:
            return math.nan
        return (now - began) / (chain.step - step) * (chain.schedule.num_steps - chain.step)

    def _append(self, chain: Chain, plan: Plan, numbers: Mapping[str, float]) -> None:
        """Add a row; a file that an earlier release began keeps its columns."""
        path = self.place(chain.index)
        path.parent.mkdir(parents=True, exist_ok=True)
        row = {
            "seconds": round(time.monotonic() - self.began, 1),
            "step": chain.step,
            "phase": plan.phase,
            **{name: f"{value:.6g}" if math.isfinite(value) else "" for name, value in numbers.items()},
        }
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        begun = [line for line in text.splitlines() if line]
        with path.open("a", newline="", encoding="utf-8") as file:
            if text and not text.endswith("\n"):  # a kill cut the last line
                file.write("\n")
            writer = csv.DictWriter(file, begun[0].split(",") if begun else list(row), extrasaction="ignore")
            if not begun:
                writer.writeheader()
            writer.writerow(row)

    def _write_events(self, chain: Chain, numbers: Mapping[str, float]) -> None:
        if chain.index not in self._writers:
            from torch.utils.tensorboard import SummaryWriter

            self._writers[chain.index] = SummaryWriter(str(self.place(chain.index).with_suffix("")))
        writer = self._writers[chain.index]
        for name, value in numbers.items():
            if math.isfinite(value):
                writer.add_scalar(name, value, chain.step)
        writer.flush()


def ess_so_far(outputs: np.ndarray) -> float:
    """The smallest bulk ESS of one chain over its outputs at the first probes; NaN with fewer than ten draws.

    Parameters
    ----------
    outputs : array, shape (draw, probe, output)
    """
    if len(outputs) < MIN_DRAWS_ESS:
        return math.nan
    return float(ess(torch.from_numpy(outputs[None, :, :PROBES])).min())
