"""A candidate to two rows of the table: the single network, and the ensemble."""

import resource
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sgmcmc_prune.compare.method import Candidate, Method, Predict
from sgmcmc_prune.models import num_parameters
from sgmcmc_prune.predictive.flops import multiply_adds
from sgmcmc_prune.predictive.metrics import auroc, summarise
from sgmcmc_prune.pruning import masks
from sgmcmc_prune.pruning.shrink import shrink
from sgmcmc_prune.store.result_table import COMMON

#: Columns of comparison.csv. `flops` are the multiply-adds of one network for one input that a mask leaves, whether or
#: not its nodes can be cut out, and `cut_flops` those of the network without the nodes that are cut (None where they
#: are not known, or it cannot be cut); `peak_memory` is in bytes;
#: `gradient_evaluations` are those of the one training behind a network, which may serve several targets (`training`);
#: `calibration_examples` are those of them that were looked at after training;
#: `shuffled_accuracy` is that of the same masks shuffled within their layers, where a method is one shot;
#: `ties` of `groups` were decided by tie, as far as that is known;
#: `search_evaluations` are the gradient evaluations spent on choosing `settings`, once for all seeds and targets.
OTHERS = (
    *("family", "achieved_sparsity", "own_stopping_rule", "kind", "brier", "ood_auroc", "parameters_kept", "flops"),
    *(
        "cut_flops",
        "members",
        "inference_flops",
        "ties",
        "groups",
        "training",
        "calibration_examples",
        "peak_memory",
        "settings",
    ),
    *("shuffled_accuracy", "search_evaluations", "reason"),
)
COLUMNS = (*COMMON, *OTHERS)
Row = dict[str, Any]


def rows(
    method: Method, seed: int, candidate: Candidate, model: nn.Module, split: tuple[Tensor, Tensor], ood: Tensor | None
) -> list[Row]:
    """The two rows of a candidate on one split.

    Parameters
    ----------
    method : Method
    seed : int
    candidate : Candidate
    model : Module
        The architecture.
    split : tuple of Tensor
        Inputs and labels.
    ood : Tensor, optional
        Inputs from another data set; detected by the entropy of the prediction.
    """
    zeros = np.mean([sum(int((~kept).sum()) for kept in mask.values()) for mask in candidate.masks])
    flops = _mean([multiply_adds(model, split[0][:1], mask) for mask in candidate.masks])
    cut_flops = _mean([_cut_multiply_adds(model, split[0][:2], mask) for mask in candidate.masks])
    common = {
        **blank(method, seed),
        "sparsity": candidate.target,
        "achieved_sparsity": float(np.mean([masks.sparsity(mask) for mask in candidate.masks])),
        "own_stopping_rule": candidate.target is None,
        "parameters_kept": round(num_parameters(model) - zeros),
        "flops": None if flops is None else round(flops),
        "cut_flops": None if cut_flops is None else round(cut_flops),
        "ties": candidate.ties and candidate.ties.count,
        "groups": candidate.ties and candidate.ties.groups,
        "gradient_evaluations": candidate.cost.gradient_evaluations,
        "calibration_examples": candidate.calibration_examples,
        "seconds": round(candidate.cost.seconds, 3),
        "peak_memory": peak_memory(split[0].device),
    }
    alone = _quality(candidate.single, split, ood)
    together = _quality(candidate.predict, split, ood) if candidate.members > 1 else alone
    controls = _controls(candidate.shuffled, split)
    return [
        {
            **common,
            "kind": kind,
            "members": members,
            "inference_flops": None if flops is None else round(flops * members),
            "shuffled_accuracy": control,
            **quality,
        }
        for kind, members, quality, control in (
            ("single", 1, alone, controls[0]),
            ("ensemble", candidate.members, together, controls[1]),
        )
    ]


def _mean(counts: Sequence[int | None]) -> float | None:
    """None if one is not known."""
    known = [count for count in counts if count is not None]
    return float(np.mean(known)) if len(known) == len(counts) else None


def _cut_multiply_adds(model: nn.Module, example: Tensor, mask: masks.Mask) -> int | None:
    """What the smaller network computes for one input."""
    try:
        return multiply_adds(shrink(model, mask, example).model, example[:1])
    except ValueError:  # its reason stands in a run's summary; here a cell stays empty
        return None


def blank(method: Method, seed: int, reason: str = "") -> Row:
    """A row of a method without results."""
    named = {"method": method.name, "family": method.family, "seed": seed, "training": method.training}
    texts = dict.fromkeys(("split", "data", "kind", "settings"), "")  # the first two are the comparison's
    return dict.fromkeys(COLUMNS) | named | texts | {"reason": reason}


def peak_memory(device: torch.device) -> int:
    """Largest memory that this process has used so far, in bytes: on the GPU, or resident on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _controls(shuffled: Candidate | None, split: tuple[Tensor, Tensor]) -> tuple[float | None, float | None]:
    """Accuracies of the control: of its single network, and of its ensemble."""
    if shuffled is None:
        return None, None
    alone = summarise(shuffled.single(split[0]), split[1])["accuracy"]
    return alone, summarise(shuffled.predict(split[0]), split[1])["accuracy"] if shuffled.members > 1 else alone


def _quality(predict: Predict, split: tuple[Tensor, Tensor], ood: Tensor | None) -> dict[str, float]:
    probabilities = predict(split[0])
    scores = summarise(probabilities, split[1])
    if ood is not None:
        foreign = torch.special.entr(predict(ood)).sum(1)
        scores["ood_auroc"] = auroc(torch.special.entr(probabilities).sum(1), foreign)
    return scores
