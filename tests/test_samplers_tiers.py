"""Every tier does what the reference does, from the same random words, whatever the layout, prior or mask."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sgmcmc_prune.preconditioners import Layerwise, RMSprop
from sgmcmc_prune.priors import Gaussian, Laplace, SpikeSlab
from sgmcmc_prune.samplers import BAOAB, SGHMC, SGLD, Sampler, tiers, triton_tier

pytestmark = pytest.mark.usefixtures("kernels")


def network(channels_last: bool = False) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 4 * 4, 7), nn.Linear(7, 2))
    return model.to(memory_format=torch.channels_last) if channels_last else model  # type: ignore[call-overload, no-any-return]


PRIORS: dict[str, Any] = {
    "flat": lambda params: None,
    "gaussian": lambda params: Gaussian(0.1),
    "laplace": lambda params: Laplace(0.1),
    "marginal": lambda params: SpikeSlab(params, spike_variance=1e-2),
    "filters": lambda params: SpikeSlab(params, group="filter", spike_variance=1e-2),
    "em": lambda params: SpikeSlab(params, mode="em", spike_variance=1e-2),
}


def run(
    kind: type[Sampler],
    implementation: str,
    *,
    prior: str = "gaussian",
    preconditioner: Any = None,
    channels_last: bool = False,
    masked: bool = False,
    noise: str = "gaussian",
    steps: int = 6,
) -> tuple[Sampler, list[torch.Tensor]]:
    """Several steps on fixed minibatches, with a changing step size; the sampler and its parameters."""
    model = network(channels_last)
    params = dict(model.named_parameters())
    sampler = kind(
        params.items(),
        lr=0.01,
        num_data=50,
        prior=PRIORS[prior](params),
        preconditioner=copy.deepcopy(preconditioner),
        seed=3,
        chain=1,
        implementation=implementation,
        noise=noise,
    )
    if masked:
        generator = torch.Generator().manual_seed(1)
        sampler.set_mask({n: torch.rand(p.shape, generator=generator) > 0.5 for n, p in params.items() if p.dim() > 1})
    x = torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(2))
    for step in range(steps):
        sampler.configure(lr=0.01 / (1 + step % 3))
        sampler.zero_grad()
        model(x).square().mean().backward()
        sampler.step()
        if step == 2:
            sampler.refresh_preconditioner()
            sampler.freeze()
    return sampler, [p.detach().clone() for p in params.values()]


def assert_same(a: list[torch.Tensor], b: list[torch.Tensor]) -> None:
    """To rounding."""
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("prior", list(PRIORS))
@pytest.mark.parametrize("kind", [SGHMC, SGLD])
def test_the_kernels_are_the_reference_under_every_prior(kind: type[Sampler], prior: str) -> None:
    assert_same(run(kind, "compiled", prior=prior)[1], run(kind, "reference", prior=prior)[1])


@pytest.mark.parametrize("preconditioner", [RMSprop(), Layerwise()])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("noise", ["gaussian", "rademacher"])
def test_the_kernels_are_the_reference_with_mass_mask_layout_and_noise(
    preconditioner: Any, channels_last: bool, noise: str
) -> None:
    settings = {"preconditioner": preconditioner, "channels_last": channels_last, "noise": noise, "masked": True}
    sampler, ours = run(SGHMC, "compiled", prior="marginal", **settings)
    assert_same(ours, run(SGHMC, "reference", prior="marginal", **settings)[1])
    for _, p, state, _ in sampler.named_states():
        if "mask" in state:
            assert torch.all(p[~state["mask"]] == 0)
            assert torch.all(state["momentum_buffer"][~state["mask"]] == 0)


def test_a_sampler_without_a_kernel_gets_compiled_noise() -> None:
    ours, theirs = run(BAOAB, "compiled"), run(BAOAB, "reference")
    assert ours[0].param_groups[0]["implementation"] == "compiled"
    assert_same(ours[1], theirs[1])


def test_a_state_moves_between_tiers() -> None:
    """A state saved under one tier goes on under the other; the tier itself is the machine's."""
    whole = run(SGHMC, "reference", steps=6)[1]
    sampler, _ = run(SGHMC, "compiled", steps=6)
    other, _ = run(SGHMC, "reference", steps=1)
    other.load_state_dict(copy.deepcopy(sampler.state_dict()))
    assert other.param_groups[0]["implementation"] == "reference"
    assert other.param_groups[0]["step"] == 6
    assert_same([p.detach() for _, p, _, _ in sampler.named_states()], whole)


def test_auto_takes_the_fastest_tier() -> None:
    single, double = list(network().parameters()), list(network().double().parameters())
    assert [tiers.choose("auto", p) for p in (single, double)] == ["compiled", "reference"]
    assert [tiers.choose("auto", p, fused=False) for p in (single, double)] == ["compiled", "reference"]


@pytest.mark.parametrize(
    ("tier", "fused", "message"),
    [
        ("compiled", True, r"cannot run: a parameter is torch\.float64 on cpu.*; use 'reference'"),
        (
            "triton",
            True,
            r"cannot run: a parameter is torch\.float64 on cpu.*for float32 on a CUDA GPU; use 'reference'",
        ),
        (
            "triton",
            False,
            "rule is neither that of SGHMC nor that of SGLD; use 'reference'",
        ),
        ("fast", True, "'fast'; choose auto, reference, compiled or triton"),
    ],
)
def test_a_tier_that_cannot_run_says_why_and_what_can(tier: Any, fused: bool, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiers.choose(tier, list(network().double().parameters()), fused)


def test_parameters_that_move_after_construction_are_named() -> None:
    model = network()
    sampler = SGHMC(model.named_parameters(), lr=0.1, num_data=5)
    model.double()
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    with pytest.raises(
        ValueError, match=r"'0\.weight' is torch\.float64 of shape \(5, 3, 3, 3\) on cpu, but was torch\.float32"
    ):
        sampler.step()


@pytest.mark.parametrize(
    ("shape", "order", "expected"),
    [
        ((3, 4), (0, 1), (1, 1)),
        ((3, 4), (1, 0), (3, 4)),
        ((5, 3, 2, 4), (0, 2, 3, 1), (3, 8)),
        ((5, 3, 2, 4), (1, 2, 3, 0), (5, 24)),
        ((5, 3, 4), (2, 1, 0), None),
    ],
)
def test_the_memory_order_of_a_weight(
    shape: tuple[int, ...], order: tuple[int, ...], expected: tuple[int, int] | None
) -> None:
    """With (C, I), entry (o, c, i) lies at o C I + i C + c."""
    w = (
        torch.arange(math.prod(shape))
        .view([shape[k] for k in order])
        .permute([order.index(k) for k in range(len(shape))])
    )
    assert w.shape == shape
    found = triton_tier.memory_order(w)
    assert found == expected
    if found is not None:
        channels, inner = found
        o, c, i = np.indices((w.numel() // (channels * inner), channels, inner))
        assert w.flatten().tolist() == (o * channels * inner + i * channels + c).ravel().tolist()
