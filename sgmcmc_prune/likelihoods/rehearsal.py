"""A rehearsal of how a likelihood scores predictions: what would fail after all sampling is refused before it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sgmcmc_prune.likelihoods.base import ObservationModel


@torch.no_grad()
def rehearse_scores(likelihood: ObservationModel, outputs: Tensor, targets: Tensor) -> None:
    """See that `score` gives a number for every heading, and `each` one for each example.

    Parameters
    ----------
    likelihood : ObservationModel
    outputs : Tensor, shape (n, outputs)
        Of a network; a prediction of two members is made of them.
    targets : Tensor, shape (n, ...)

    Raises
    ------
    ValueError, TypeError
        In one line that names the score.
    """
    name, count = type(likelihood).__name__, len(targets)
    try:
        prediction: Any = likelihood.prediction(outputs)
        prediction = prediction.pooled(likelihood.prediction(outputs))
        scores: Any = likelihood.score(prediction, targets)
        each: Any = likelihood.each(prediction, targets)
    except Exception as error:  # a user's own may raise anything
        reason = (str(error).splitlines() or [""])[0]
        raise ValueError(
            f"{name} cannot score a prediction of {count} training examples: {type(error).__name__}: {reason}"
        ) from error
    for method, found in (("score", scores), ("each", each)):
        if not isinstance(found, Mapping):
            raise TypeError(f"`{method}` of {name} gives a {type(found).__name__}; it must give a mapping by name")
    for key, value in scores.items():
        if isinstance(value, Tensor):
            instead = "give its mean" if value.ndim else "give a float"
            raise TypeError(f"score {key!r} of {name} is a tensor of shape {tuple(value.shape)}; {instead}")
        if not isinstance(value, int | float):
            raise TypeError(f"score {key!r} of {name} is a {type(value).__name__}; give a float")
    if missing := [key for key in likelihood.headings if key not in scores]:
        raise ValueError(f"`score` of {name} gives no {missing[0]!r}, which is one of its headings")
    for key, values in each.items():
        if not isinstance(values, Tensor | np.ndarray):
            raise TypeError(f"`each` of {name} gives a {type(values).__name__} for {key!r}; give a tensor ({count},)")
        if tuple(values.shape) != (count,):
            raise ValueError(
                f"`each` of {name} gives shape {tuple(values.shape)} for {key!r}; give ({count},), a number for each "
                "example"
            )
