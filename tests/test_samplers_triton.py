"""The Triton tier: its noise is that of `noise.py`, its steps are those of the reference, and bad gradients stop it.

With a CUDA GPU the kernel is compiled. Without one the tests run in Triton's interpreter, which has to be chosen before
Triton is imported: the first test runs the others in a process of their own. A statistical test has a fixed seed and
states how often it would fail over seeds if the code were right.
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chi2, kstest
from torch import Tensor

from sgmcmc_prune import noise
from sgmcmc_prune.errors import RunError
from sgmcmc_prune.preconditioners import RMSprop
from sgmcmc_prune.priors import Gaussian, SpikeSlab
from sgmcmc_prune.samplers import SGHMC, SGLD, Sampler, tiers, triton_tier
from sgmcmc_prune.samplers.step import begin

if find_spec("triton") is None:
    pytest.skip("Triton is not installed", allow_module_level=True)

INTERPRETING = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETING else "cuda"
runs_triton = pytest.mark.skipif(
    not (INTERPRETING or torch.cuda.is_available()), reason="runs in the process of test_in_the_interpreter"
)


@pytest.mark.skipif(INTERPRETING, reason="this is the interpreter")
def test_in_the_interpreter() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


# ---------------------------------------------------------------- noise


@pytest.fixture
def large_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter's time is that of its programs, whatever their size."""
    if INTERPRETING:
        monkeypatch.setattr("sgmcmc_prune.samplers.triton_kernels.BLOCKS", 2**14)


def kernel_noise(kind: str, count: int, offset: int = 0, step: int = 0, seed: int = 0, chain: int = 0) -> Tensor:
    """The kernel's noise: a step of SGLD from zero, without a gradient, with 2 l T / N = 1."""
    w = torch.nn.Parameter(torch.zeros(count, device=DEVICE))
    sampler = SGLD([w], lr=0.5, num_data=1, seed=seed, chain=chain, noise=kind, implementation="triton")  # type: ignore[arg-type]
    w.grad = torch.zeros_like(w)
    sampler.param_groups[0] |= {"offset": offset, "step": step}
    take_steps(sampler, 1)
    return w.detach().cpu()


def take_steps(sampler: Sampler, steps: int) -> None:
    with torch.no_grad():
        for _ in range(steps):
            sampler.follow_memory()
            begun = [begin(group, sampler.memory) for group in sampler.param_groups]
            for step in begun:
                triton_tier.all_finite(step)
            for step, group in zip(begun, sampler.param_groups, strict=True):
                sampler.complete(step)
                triton_tier.take(step)
                group["step"] += 1


FAR = {"step": 2**33 + 5, "seed": 2**32 - 1, "chain": 2**16 - 1}


@runs_triton
@pytest.mark.parametrize("blocks", [64, 2**12])
@pytest.mark.parametrize("offset", [0, 1, 66, 4 * (2**32 - 3) + 1, 2**40 + 3])
def test_words_are_those_of_the_reference_to_the_bit(offset: int, blocks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sign is a bit of a word, so all bits of some words are compared; the block counter carries."""
    monkeypatch.setattr("sgmcmc_prune.samplers.triton_kernels.BLOCKS", blocks)
    ours = kernel_noise("rademacher", 1000, offset, **FAR)
    assert torch.equal(ours, noise.rademacher(FAR["seed"], FAR["chain"], FAR["step"], offset, 1000))


@runs_triton
@pytest.mark.usefixtures("large_programs")
@pytest.mark.parametrize("offset", [0, 1, 2, 1021, 4 * (2**32 - 3) + 1])
def test_normals_agree_with_the_reference_to_4_ulp(offset: int) -> None:
    ours = kernel_noise("gaussian", 20_000, offset, **FAR)
    theirs = noise.standard_normal(FAR["seed"], FAR["chain"], FAR["step"], offset, 20_000)
    spacing = torch.nextafter(theirs.abs(), torch.tensor(torch.inf)) - theirs.abs()
    assert float(((ours - theirs).abs() / spacing).max()) <= 4


@runs_triton
@pytest.mark.usefixtures("large_programs")
def test_normals_are_standard_normal() -> None:
    """Kolmogorov-Smirnov and the sum of squares, each at a false-alarm rate of 1e-3."""
    z = kernel_noise("gaussian", 100_000, seed=1).double().numpy()
    assert kstest(z, "norm").pvalue > 1e-3
    assert chi2(len(z)).ppf(5e-4) < (z**2).sum() < chi2(len(z)).ppf(1 - 5e-4)


@runs_triton
@pytest.mark.usefixtures("large_programs")
@pytest.mark.parametrize("kind", ["gaussian", "rademacher"])
@pytest.mark.parametrize("other", [{"seed": 1}, {"chain": 1}, {"step": 1}])
def test_chains_and_steps_are_uncorrelated(kind: str, other: dict[str, int]) -> None:
    """False-alarm rate 1e-3 each: the correlation of 50,000 pairs is normal with standard deviation 1 / sqrt(n)."""
    a, b = kernel_noise(kind, 50_000), kernel_noise(kind, 50_000, **other)
    assert abs(float((a * b).mean())) < 3.29 / np.sqrt(50_000)


# ---------------------------------------------------------------- steps

#: Sizes that are no multiple of a program's share, offsets that are none of four, more than one program, one weight.
SHAPES = [(3, 5), (1,), (31, 37), (7, 3, 3, 3), (13,)]
PRIORS: dict[str, Any] = {
    "flat": lambda params: None,
    "gaussian": lambda params: Gaussian(0.1),
    "mixture": lambda params: SpikeSlab(params, spike_variance=1e-2),
    "held": lambda params: SpikeSlab(params, mode="em", group="filter", spike_variance=1e-2),
    "torch": lambda params: SpikeSlab(params, group="filter", spike_variance=1e-2),
}


def make(
    kind: type[Sampler],
    implementation: Any,
    prior: str = "gaussian",
    mass: bool = False,
    mask: bool = False,
    **settings: Any,
) -> Sampler:
    """A sampler of two groups with fixed gradients; one tensor is channels last, one lies transposed."""
    generator = torch.Generator().manual_seed(0)

    def draw(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=generator).to(DEVICE)

    params = {f"p{i}": torch.nn.Parameter(draw(shape) * 0.1) for i, shape in enumerate(SHAPES)}
    params["p2"].data = params["p2"].data.t().contiguous().t()
    params["p3"].data = params["p3"].data.contiguous(memory_format=torch.channels_last)
    named = list(params.items())
    groups = [{"params": named[:2], "lr": 0.02}, {"params": named[2:]}]
    options = {"lr": 0.01, "num_data": 500, "seed": 5, "chain": 3, "prior": PRIORS[prior](params), **settings}
    sampler = kind(groups, implementation=implementation, **options)
    for p in params.values():
        p.grad = draw(tuple(p.shape)) * 0.1
        if mass:
            sampler.state[p]["mass"] = draw(tuple(p.shape)).abs() + 0.5
    if mask:
        sampler.set_mask({name: draw(tuple(p.shape)) > -0.5 for name, p in params.items() if p.dim() > 1})
    return sampler


def positions(sampler: Sampler) -> list[Tensor]:
    return [p.detach() for _, p, _, _ in sampler.named_states()]


def assert_same_steps(kind: type[Sampler], **settings: Any) -> None:
    """Three steps, with a step size that changes."""
    ours, theirs = make(kind, "triton", **settings), make(kind, "reference", **settings)
    for step in range(3):
        for sampler in (ours, theirs):
            sampler.configure(lr=0.01 / (1 + step))
        take_steps(ours, 1)
        theirs.step()
        if step == 1:
            for sampler in (ours, theirs):
                sampler.refresh_preconditioner()
                sampler.freeze()
    for a, b in zip(positions(ours), positions(theirs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    for (_, _, a, _), (_, _, b, _) in zip(ours.named_states(), theirs.named_states(), strict=True):
        if "momentum_buffer" in b:
            torch.testing.assert_close(a["momentum_buffer"], b["momentum_buffer"], rtol=1e-5, atol=1e-5)
        if "mask" in a and "momentum_buffer" in a:
            assert torch.all(a["momentum_buffer"][~a["mask"]] == 0)


@runs_triton
@pytest.mark.parametrize("kind", [SGHMC, SGLD])
@pytest.mark.parametrize("prior", list(PRIORS))
@pytest.mark.parametrize("full", [False, True])
def test_steps_are_those_of_the_reference_under_every_prior(kind: type[Sampler], prior: str, full: bool) -> None:
    assert_same_steps(kind, prior=prior, mass=full, mask=full)


@runs_triton
@pytest.mark.parametrize("kind", [SGHMC, SGLD])
@pytest.mark.parametrize("settings", [{"noise": "rademacher"}, {"temperature": 0.0}, {"preconditioner": RMSprop()}])
def test_steps_are_those_of_the_reference_with_every_noise_and_an_adapting_mass(
    kind: type[Sampler], settings: dict[str, Any]
) -> None:
    assert_same_steps(kind, prior="mixture", mask=True, **settings)


@runs_triton
def test_tensors_may_move_and_rest_between_steps() -> None:
    ours, theirs = make(SGHMC, "triton"), make(SGHMC, "reference")
    for step in range(3):
        for sampler in (ours, theirs):
            moving, resting = sampler.param_groups[1]["params"][:2]
            moving.data, moving.grad = moving.data.clone(), torch.full_like(moving, step)
            resting.requires_grad_(step != 1)
            resting.grad = torch.ones_like(resting) if step != 1 else None
        take_steps(ours, 1)
        theirs.step()
    for a, b in zip(positions(ours), positions(theirs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@runs_triton
@pytest.mark.parametrize("mode", ["marginal", "em"])
@pytest.mark.parametrize(("spike", "slab"), [(1e-8, 1.0), (1e-7, 10.0), (1e-9, 0.05)])
def test_a_weight_in_the_slab_feels_the_slab_alone(mode: Any, spike: float, slab: float) -> None:
    w = torch.nn.Parameter(torch.full((4, 4), 0.5, device=DEVICE))
    prior = SpikeSlab({"w": w}, mode=mode, spike_variance=spike, slab_variance=slab)
    sampler = SGLD([("w", w)], lr=1.0, num_data=1, temperature=0.0, prior=prior, implementation="triton")
    w.grad = torch.zeros_like(w)
    take_steps(sampler, 1)
    torch.testing.assert_close((0.5 - w) * slab / 0.5, torch.ones_like(w), rtol=1e-5 / min(slab, 1), atol=0)


@runs_triton
def test_a_layout_that_changes_and_empty_tensors_are_followed() -> None:
    ends = []
    for tier in ("triton", "reference"):
        torch.manual_seed(0)
        empty, w = (torch.nn.Parameter(torch.randn(*s, 3, 3, 3, device=DEVICE)) for s in ((0,), (4,)))
        groups = [{"params": [("empty", empty)]}, {"params": [("w", w)]}]
        sampler = SGHMC(groups, lr=0.01, num_data=10, seed=0, implementation=tier)  # type: ignore[arg-type]
        for step in range(4):
            if step == 2:
                w.data = w.data.to(memory_format=torch.channels_last)
            empty.grad, w.grad = torch.zeros_like(empty), torch.sin(w.detach())
            if tier == "triton":
                take_steps(sampler, 1)
            else:
                sampler.step()
        ends.append(w.detach())
    torch.testing.assert_close(*ends, rtol=1e-5, atol=1e-6)


@runs_triton
@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_nothing_moves_from_the_first_bad_gradient_on(value: float) -> None:
    """Not even the group before the bad one; the flag tells the step."""
    sampler = make(SGHMC, "triton", mass=True)
    take_steps(sampler, 2)
    sampler.check()
    before = [p.clone() for p in positions(sampler)]
    p = sampler.param_groups[1]["params"][1]
    good, p.grad = p.grad, p.grad.clone()
    p.grad[3, 1, 2, 0] = value
    take_steps(sampler, 1)
    p.grad = good
    take_steps(sampler, 2)
    assert all(torch.equal(a, b) for a, b in zip(positions(sampler), before, strict=True))
    assert int(sampler.memory.flag) == 3
    with pytest.raises(RunError, match="not finite at step 2: the chain has diverged"):
        sampler.check()


@runs_triton
def test_large_gradients_that_are_finite_do_not_stop_it() -> None:
    sampler = make(SGHMC, "triton", lr=1e-30)
    for _, p, _, _ in sampler.named_states():
        p.grad = torch.full_like(p, 3e38)
    take_steps(sampler, 1)
    sampler.check()


@runs_triton
def test_the_host_does_not_wait_for_the_device() -> None:
    if DEVICE == "cpu":
        pytest.skip("needs a GPU")
    sampler = make(SGHMC, "triton", mass=True, mask=True)
    take_steps(sampler, 1)
    torch.cuda.set_sync_debug_mode("error")
    try:
        take_steps(sampler, 1)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.skipif(INTERPRETING, reason="the interpreter compiles nothing")
def test_the_kernel_compiles_and_a_schedule_compiles_nothing() -> None:
    """To machine code of an H100, for which no GPU is needed; integers such as 1 and 16 are not treated apart."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, make_backend
    from triton.runtime.jit import create_function_from_signature

    from sgmcmc_prune.samplers.triton_kernels import BLOCKS, LAUNCH, step_kernel

    target = GPUTarget("cuda", 90, 32)
    bind = create_function_from_signature(step_kernel.signature, step_kernel.params, make_backend(target))
    rows = torch.zeros(64, dtype=torch.int64)
    found = []
    for integer in (0, 1, 15, 16, 2**31, -(2**63)):
        for real in (0.0, 1.0, 0.5):
            integers = integer, abs(integer), min(abs(integer), 2)
            found.append(bind(rows, rows, rows, *integers, *[real] * 5, BLOCKS=BLOCKS)[1])
    assert all(one == found[0] for one in found)
    kinds = {p.name: kind for p, (kind, _) in zip(step_kernel.params, found[0], strict=True)}
    source = ASTSource(step_kernel, kinds, constexprs={(len(kinds) - 1,): BLOCKS})
    assert triton.compile(source, target=target, options=LAUNCH).asm["cubin"]


# ---------------------------------------------------------------- where it runs


@runs_triton
def test_what_it_cannot_take_is_named() -> None:
    ordinary = torch.zeros(2, 3, 4, device=DEVICE)
    assert tiers.why_not_triton([ordinary]) is None
    assert "float64" in str(tiers.why_not_triton([ordinary.double()]))
    assert "memory" in str(tiers.why_not_triton([ordinary[:, ::2]]))
    assert "memory" in str(tiers.why_not_triton([ordinary.permute(2, 1, 0)]))
