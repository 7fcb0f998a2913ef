"""The streamed predictive against a direct loop; what it must leave alone; Jensen's inequalities."""

import copy
import math
import weakref
from collections.abc import Iterator, Mapping

import pytest
import torch
from torch import Tensor, nn

from sgmcmc_prune.predictive.metrics import negative_log_likelihood
from sgmcmc_prune.predictive.predict import Predictive, class_probabilities, pool, posterior_predictive

Draw = dict[str, Tensor]


@pytest.fixture
def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))


@pytest.fixture
def inputs() -> Tensor:
    return torch.randn(25, 6, generator=torch.Generator().manual_seed(1))


def random_draws(model: nn.Module, count: int, seed: int = 2) -> Iterator[Draw]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        yield {name: torch.randn(w.shape, generator=generator) for name, w in model.named_parameters()}


def direct(model: nn.Module, draw: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
    """One member, by loading the weights into a copy."""
    network = copy.deepcopy(model).eval()
    network.load_state_dict(draw, strict=False)
    with torch.no_grad():
        return network(inputs).double().softmax(1)


def test_class_probabilities(model: nn.Module, inputs: Tensor) -> None:
    weights = dict(model.named_parameters())
    probabilities = class_probabilities(model, inputs, batch_size=4)
    assert probabilities.dtype == torch.float64
    torch.testing.assert_close(probabilities, direct(model, weights, inputs), rtol=1e-5, atol=1e-7)


def test_equals_a_direct_loop(model: nn.Module, inputs: Tensor) -> None:
    members = torch.stack([direct(model, draw, inputs) for draw in random_draws(model, 5)])
    predictive = posterior_predictive(model, random_draws(model, 5), inputs, batch_size=7)
    entropy = -(members * members.log()).sum(2).mean(0)
    total_entropy = -(members.mean(0) * members.mean(0).log()).sum(1)
    assert predictive.members == 5
    torch.testing.assert_close(predictive.probabilities, members.mean(0), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(predictive.expected_entropy, entropy, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(predictive.mutual_information, total_entropy - entropy, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("at_once", [2, 5, 8])
def test_draws_that_share_a_pass_give_the_same(model: nn.Module, inputs: Tensor, at_once: int) -> None:
    """Seven draws: the last pass holds fewer; one draw has other BatchNorm statistics."""
    draws = list(random_draws(model, 7))
    for draw in draws:
        draw |= {name: b.clone() for name, b in model.named_buffers() if b.is_floating_point()}
    draws[3]["1.running_mean"] += 1
    mask = {"0.weight": torch.arange(48).view(8, 6) % 2 == 0}
    one, several = (posterior_predictive(model, draws, inputs, mask, 4, draws_at_once=k) for k in (1, at_once))
    assert several.members == 7
    torch.testing.assert_close(several.probabilities, one.probabilities, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(several.expected_entropy, one.expected_entropy, rtol=1e-5, atol=1e-7)


def test_leaves_the_model_alone(model: nn.Sequential, inputs: Tensor) -> None:
    model.train()
    model[1].eval()  # frozen by design
    before = copy.deepcopy(model.state_dict())
    parameters = list(model.parameters())
    posterior_predictive(model, random_draws(model, 2), inputs)
    class_probabilities(model, inputs)
    with pytest.raises(RuntimeError):  # also when the forward pass fails
        posterior_predictive(model, random_draws(model, 2), inputs[:, :5])
    assert all(now is then for now, then in zip(model.parameters(), parameters, strict=True))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model] == [True, False, True, True, True]
    assert model.training


def test_draws_are_consumed_one_at_a_time(model: nn.Module, inputs: Tensor) -> None:
    alive: list[int] = []
    references: list[weakref.ref[Tensor]] = []

    def watched() -> Iterator[Draw]:
        draws = random_draws(model, 6)
        while (draw := next(draws, None)) is not None:
            references.append(weakref.ref(draw["0.weight"]))
            alive.append(sum(reference() is not None for reference in references))
            yield draw

    assert posterior_predictive(model, watched(), inputs).members == 6
    assert len(alive) == 6
    assert max(alive) <= 2  # the draw just made, and the one before it


def test_masks_are_exact(model: nn.Module, inputs: Tensor) -> None:
    kept = torch.rand(8, 6, generator=torch.Generator().manual_seed(3)) < 0.3
    draws = list(random_draws(model, 3))
    masked = [draw | {"0.weight": draw["0.weight"] * kept} for draw in draws]
    expected = posterior_predictive(model, masked, inputs).probabilities
    for draw in draws:
        draw["0.weight"][~kept] = math.nan  # zero times NaN would show
    torch.testing.assert_close(
        posterior_predictive(model, draws, inputs, {"0.weight": kept}).probabilities, expected, rtol=0, atol=0
    )
    assert all(draw["0.weight"][~kept].isnan().all() for draw in draws)


def test_draws_may_hold_buffers_and_other_dtypes(model: nn.Module, inputs: Tensor) -> None:
    draw = next(random_draws(model, 1)) | {"1.running_mean": torch.ones(8), "1.running_var": torch.full((8,), 4.0)}
    expected = direct(model, draw, inputs)
    torch.testing.assert_close(posterior_predictive(model, [draw], inputs).probabilities, expected)
    half = {name: value.half() for name, value in draw.items()}
    torch.testing.assert_close(posterior_predictive(model, [half], inputs).probabilities, expected, rtol=0, atol=0.02)


@pytest.mark.parametrize("seed", range(10))
def test_ensemble_is_no_worse_than_its_average_member(model: nn.Module, inputs: Tensor, seed: int) -> None:
    labels = torch.randint(3, (25,), generator=torch.Generator().manual_seed(seed))
    draws = list(random_draws(model, 4, seed))
    predictive = posterior_predictive(model, draws, inputs)
    members = [posterior_predictive(model, [draw], inputs) for draw in draws]
    mean_nll = sum(negative_log_likelihood(member.probabilities, labels) for member in members) / 4
    assert negative_log_likelihood(predictive.probabilities, labels) <= mean_nll
    information = predictive.mutual_information
    assert float(information.min()) >= 0
    assert float(information.max()) <= math.log(3)
    assert all(float(member.mutual_information.max()) == 0 for member in members)


def test_pool_weighs_chains_by_members(model: nn.Module, inputs: Tensor) -> None:
    draws = list(random_draws(model, 5))
    chains = [posterior_predictive(model, part, inputs) for part in (draws[:1], draws[1:])]
    pooled, whole = pool(iter(chains)), posterior_predictive(model, draws, inputs)
    assert pooled.members == 5
    torch.testing.assert_close(pooled.probabilities, whole.probabilities)
    torch.testing.assert_close(pooled.expected_entropy, whole.expected_entropy)


def test_pool_refuses_what_does_not_fit() -> None:
    chains = [Predictive(torch.full((n, 2), 0.5), 1, torch.zeros(n)) for n in (3, 4)]
    with pytest.raises(ValueError, match="one shape, not 2 of shapes"):
        pool(chains)
    with pytest.raises(ValueError, match="one or more predictives"):
        pool([])


def test_bad_draws(model: nn.Module, inputs: Tensor) -> None:
    draw = next(random_draws(model, 1))
    with pytest.raises(ValueError, match="at least one draw"):
        posterior_predictive(model, [], inputs)
    with pytest.raises(ValueError, match=r"missing \['0.bias'\]"):
        posterior_predictive(model, [{k: v for k, v in draw.items() if k != "0.bias"}], inputs)
    with pytest.raises(ValueError, match=r"unknown \['9.bias'\]"):
        posterior_predictive(model, [draw | {"9.bias": torch.zeros(1)}], inputs)
    with pytest.raises(ValueError, match=r"0.bias in a draw has shape \(1,\); the model's is \(8,\)"):
        posterior_predictive(model, [draw | {"0.bias": torch.zeros(1)}], inputs)


def test_bad_inputs_and_masks(model: nn.Module, inputs: Tensor) -> None:
    with pytest.raises(ValueError, match="draws_at_once is 0"):
        posterior_predictive(model, random_draws(model, 1), inputs, draws_at_once=0)
    with pytest.raises(ValueError, match="inputs must hold at least one example"):
        class_probabilities(model, inputs[:0])
    with pytest.raises(ValueError, match="batch_size is 0; it must be an integer"):
        class_probabilities(model, inputs, batch_size=0)
    with pytest.raises(ValueError, match="logits of shape"):
        class_probabilities(nn.Flatten(0), inputs)
    for mask, error, message in [
        ({"weight": torch.ones(8, 6) > 0}, ValueError, "is no parameter"),
        ({"0.weight": torch.ones(8, 6)}, TypeError, "must be torch.bool"),
        ({"0.weight": torch.ones(6, 8) > 0}, ValueError, r"has shape \(6, 8\)"),
    ]:
        with pytest.raises(error, match=message):
            posterior_predictive(model, random_draws(model, 1), inputs, mask)


def test_inputs_as_numpy_makes_them(model: nn.Module, inputs: Tensor) -> None:
    expected = class_probabilities(model, inputs)
    torch.testing.assert_close(class_probabilities(model, inputs.double()), expected)
    with pytest.raises(TypeError, match="inputs are of type ndarray; give a tensor"):
        class_probabilities(model, inputs.numpy())  # type: ignore[arg-type]


def test_draws_that_are_no_draws(model: nn.Module, inputs: Tensor) -> None:
    draw = dict(model.state_dict())
    with pytest.raises(TypeError, match="draws is one mapping"):
        posterior_predictive(model, draw, inputs)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="in a draw is of type ndarray; give tensors"):
        posterior_predictive(model, [{n: v.numpy() for n, v in draw.items()}], inputs)  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="logits of example 0 hold a number that is not finite"):
        posterior_predictive(model, [{n: v * float("nan") for n, v in draw.items()}], inputs)
    with pytest.raises(ValueError, match="logits of example 1 hold"):
        class_probabilities(model, inputs.index_fill(0, torch.tensor(1), float("nan")))
    with pytest.raises(ValueError, match=r"batch_size is 1\.5; it must be an integer"):
        class_probabilities(model, inputs, batch_size=1.5)  # type: ignore[arg-type]
