"""Distilling: the objective by hand, a teacher of one draw that changes nothing, masks that hold, what export says."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from small_run import new_run, small
from torch import nn

from sgmcmc_prune.data import MinibatchStream
from sgmcmc_prune.likelihoods import Categorical, Gaussian, Mixture, Poisson
from sgmcmc_prune.models import MLP
from sgmcmc_prune.models.state import network_state
from sgmcmc_prune.predictive.predict import Predictive, class_probabilities, pool, predictive_of
from sgmcmc_prune.pruning import masks
from sgmcmc_prune.run.config import NetworkChoice
from sgmcmc_prune.run.distil import Teacher, distil
from sgmcmc_prune.run.export import export, table
from sgmcmc_prune.run.main import run
from sgmcmc_prune.run.presets import PRESETS
from sgmcmc_prune.settings import replace
from sgmcmc_prune.store.network import load_network


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return MLP((4,), 3, (8,)).double()


def stream() -> MinibatchStream:
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return MinibatchStream(x, torch.zeros(64, dtype=torch.long), 16, 0, 0)


def test_the_gradient_of_classes_is_the_difference_of_probabilities() -> None:
    """By hand: two draws with probabilities (3/4, 1/4) and (1/4, 3/4) average to (1/2, 1/2)."""
    draws = torch.tensor([[[math.log(3.0), 0.0]], [[0.0, math.log(3.0)]]], dtype=torch.float64)
    outputs = torch.tensor([[math.log(4.0), 0.0]], dtype=torch.float64, requires_grad=True)
    loss = Categorical().cross_entropy(outputs, pool(predictive_of(f) for f in draws))
    loss.sum().backward()
    assert loss.item() == pytest.approx(-(math.log(0.8) + math.log(0.2)) / 2)
    assert outputs.grad is not None
    torch.testing.assert_close(outputs.grad, torch.tensor([[0.8 - 0.5, 0.2 - 0.5]], dtype=torch.float64))


def test_the_gradient_of_numbers_is_that_of_the_mixtures_mean_and_variance() -> None:
    """By hand: N(0, 1) and N(2, 2^2) have mean 1 and variance (1 + 4) / 2 + 1 = 3.5; at N(3, 2^2), log s = log 2:
    d/dm = (3 - 1) / 4, d/dlog s = 1 - ((3 - 1)^2 + 3.5) / 4.
    """
    draws = Mixture((torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, math.log(2.0)]])))
    outputs = torch.tensor([[3.0, math.log(2.0)]], dtype=torch.float64, requires_grad=True)
    loss = Gaussian("heteroscedastic").cross_entropy(outputs, draws)
    loss.sum().backward()
    assert loss.item() == pytest.approx(7.5 / 8 + math.log(2.0) + math.log(2 * math.pi) / 2)
    assert outputs.grad is not None
    torch.testing.assert_close(outputs.grad, torch.tensor([[0.5, 1 - 7.5 / 4]], dtype=torch.float64))


@pytest.mark.parametrize("noise", [0.7, "learned"])
def test_the_cross_entropy_of_numbers_is_the_mean_over_drawn_targets(noise: object) -> None:
    """200,000 targets of a mixture of three: within five standard errors, a false alarm in 2 million."""
    likelihood, generator = Gaussian(noise), torch.Generator().manual_seed(1)  # type: ignore[arg-type]
    each = [torch.randn(1, likelihood.num_outputs(1), generator=generator) for _ in range(3)]
    outputs = torch.randn(1, likelihood.num_outputs(1), generator=generator)
    drawn = torch.cat([likelihood.draw(f.expand(200_000, -1), generator) for f in each])
    losses = likelihood(outputs.expand(len(drawn), -1), drawn).double()
    expected = likelihood.cross_entropy(outputs, Mixture(tuple(each))).item()
    assert abs(losses.mean().item() - expected) < 5 * losses.std().item() / math.sqrt(len(losses))


def test_a_teacher_of_one_draw_leaves_the_network_where_it_is() -> None:
    model = network(0)
    before = {name: value.clone() for name, value in network_state(model).items()}
    distil(model, {}, Teacher(network(1), [before], Categorical()), stream(), 50, lr=0.1, momentum=0.9)
    for name, value in network_state(model).items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=1e-12)


def test_a_network_comes_to_predict_as_several_do_and_its_mask_holds() -> None:
    model, batches = network(0), stream()
    mask = {"layers.0.weight": torch.arange(32).reshape(8, 4) % 4 != 0}
    masks.apply(mask, dict(model.named_parameters()))
    teacher = Teacher(network(1), [network_state(network(seed)) for seed in (1, 2)], Categorical())

    together = teacher(batches.inputs)
    assert isinstance(together, Predictive)
    mixture = together.probabilities

    def excess() -> float:
        """KL from the mixture to the network, which is zero at the best."""
        p = class_probabilities(model, batches.inputs)
        return float((mixture * (mixture / p).log()).sum(1).mean())

    start = excess()
    distil(model, mask, teacher, batches, 400, lr=0.1, momentum=0.9)
    assert excess() < 0.1 * start
    assert not model.get_parameter("layers.0.weight")[~mask["layers.0.weight"]].any()


def test_a_likelihood_without_a_cross_entropy_is_named() -> None:
    with pytest.raises(ValueError, match=r"no cross-entropy .* for Poisson; export --network mean"):
        Poisson().cross_entropy(torch.zeros(1, 1), Mixture((torch.zeros(1, 1),)))
    assert Categorical().not_distilled == Gaussian().not_distilled == ""


def test_such_a_likelihood_is_refused_before_any_draw_is_read(tmp_path: Path) -> None:
    """The run has no draws at all, which the mean's export complains of."""
    np.savez(tmp_path / "counts.npz", x=np.ones((40, 2)), y=np.ones(40))
    changes = {"data.name": f"npz:{tmp_path / 'counts.npz'}", "likelihood": "poisson"}
    folder = new_run(replace(PRESETS["regression"](), **changes), tmp_path / "run")
    (folder / "metrics.json").touch()
    with pytest.raises(ValueError, match=r"no cross-entropy .* for Poisson; export --network mean"):
        export(folder, tmp_path / "net.safetensors", NetworkChoice(network="distilled"))
    with pytest.raises((ValueError, FileNotFoundError), match=r"draws|posterior|checkpoint|nothing pruned"):
        export(folder, tmp_path / "net.safetensors", NetworkChoice())


def test_export_says_what_was_distilled_and_what_stands_beside(tmp_path: Path) -> None:
    config = small(
        **{"model.name": "mlp", "prune.targets": (0.5,), "prune.in_chain": ("magnitude",), "keep_weight_draws": True}
    )
    metrics = run(config, tmp_path / "run", progress=False)
    mean = export(tmp_path / "run", tmp_path / "mean.safetensors", NetworkChoice(), rounds=6)
    assert mean["beside"] == {}
    choice = NetworkChoice(network="distilled", epochs=0.5)
    found = export(tmp_path / "run", tmp_path / "net.safetensors", choice, rounds=6)
    (row,) = [row for row in metrics["pruned"] if row["when"] == "in_chain"]
    (single, was), (together, scores) = found["beside"].items()
    assert was == pytest.approx(mean["scores"])
    assert (single, together) == ("mean of 2 draws", f"{row['members']} draws together")
    assert scores == {"accuracy": row["accuracy"], "NLL": row["nll"]}
    assert found["pruned"] == mean["pruned"]
    assert found["scores"] != mean["scores"]
    about = load_network(tmp_path / "net.safetensors")[1]
    assert f"mean of 2 draws, distilled from {row['members']} draws in 0.5 epochs" in about.origin
    assert table(found).splitlines()[1].startswith("mean of 2 draws: accuracy")
    again = export(tmp_path / "run", tmp_path / "again.safetensors", choice, rounds=6)
    assert again["scores"] == found["scores"]


def test_epochs_are_a_number_above_zero() -> None:
    with pytest.raises(ValueError, match=r"epochs is 0\.0; it must be a number above 0"):
        NetworkChoice(network="distilled", epochs=0.0)
    with pytest.raises(ValueError, match="network mean is not trained; ask for distilled"):
        NetworkChoice(epochs=77.0)
