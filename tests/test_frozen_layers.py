"""Stochastic baselines leave a frozen layer as it is, and in nothing: no factor, no gate, no score, no mask."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from sgmcmc_prune.baselines import bmr, variational

DATA = torch.randn(48, 6, generator=torch.Generator().manual_seed(0)), torch.arange(48) % 3
TRAINED = ["0.weight", "4.weight", "6.weight"]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)]
    layers[2].requires_grad_(False)
    return nn.Sequential(*layers)


FAMILIES: dict[str, Any] = {
    "mean-field": variational.mean_field,
    "svbnn": lambda: variational.svbnn(inclusion=variational.weight_inclusion(network(), 48)),
    "ss-ig": lambda: variational.ss_ig(inclusion=variational.node_inclusion(network(), 48)),
    "ss-ghs": variational.ss_ghs,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_variational_fit_leaves_a_frozen_layer_as_it_is(family: str) -> None:
    model = network()
    fitted = variational.fit(model, DATA, variational.Settings(FAMILIES[family](), 5, 16))
    assert set(fitted.scores) <= set(TRAINED)
    assert "0.weight" not in fitted.scores or family in ("mean-field", "svbnn"), "a frozen layer reads these nodes"
    assert "2.weight" not in fitted.mask
    for draw in fitted.draws:
        assert torch.equal(draw["2.weight"], model[2].weight)
    assert torch.equal(fitted.model.get_parameter("2.weight"), model[2].weight)


def test_a_layer_that_is_frozen_in_part_is_refused() -> None:
    model = network()
    model[0].bias.requires_grad_(False)
    with pytest.raises(ValueError, match="layer '0' is frozen in part; freeze all of it"):
        variational.bayesianise(model, variational.mean_field())


@pytest.mark.parametrize("method", ["bmr-spike-slab", "tiered-ff"])
def test_model_reduction_leaves_a_frozen_layer_as_it_is(method: str) -> None:
    model = network()
    recipe = replace(bmr.paper_recipe("B", method), rounds=1, iterations=5, warm_up=5, batch_size=16)
    fitted = bmr.fit(model, DATA, method, recipe)
    assert list(fitted.scores) == TRAINED
    assert not {"2.weight", "2.bias"} & fitted.draws[0].keys()
    assert torch.equal(fitted.model.get_parameter("2.weight"), model[2].weight)
