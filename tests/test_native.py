"""The compiled kernels: the same noise as the reference, the same step to rounding, whatever the chunks and threads.

A statistical test has a fixed seed and states how often it would fail over seeds if the code were right.
"""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy.stats import chi2, kstest
from torch import Tensor

from sgmcmc_prune import native, noise
from sgmcmc_prune.noise import Stream

pytestmark = pytest.mark.usefixtures("kernels")


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Two torch threads for one test."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def units_in_last_place(a: Tensor, b: Tensor) -> Tensor:
    magnitude = b.abs()
    spacing = torch.nextafter(magnitude, torch.tensor(torch.inf)) - magnitude
    return (a - b).abs() / spacing


@pytest.mark.parametrize("offset", [0, 1, 2, 5, 1021, 4 * (2**32 - 3) + 1, 2**40 + 3])
def test_normals_agree_with_the_reference_to_4_ulp(offset: int) -> None:
    ours = native.standard_normal(7, 3, 2**33 + 5, offset, 50_000, Stream.MOMENTUM)
    theirs = noise.standard_normal(7, 3, 2**33 + 5, offset, 50_000, Stream.MOMENTUM)
    assert float(units_in_last_place(ours, theirs).max()) <= 4


@pytest.mark.parametrize("offset", [0, 1, 127, 128, 1021, 4 * (2**32 - 3) + 1])
def test_signs_are_those_of_the_reference(offset: int) -> None:
    ours, theirs = (make(7, 3, 2**33 + 5, offset, 5_000) for make in (native.rademacher, noise.rademacher))
    assert torch.equal(ours, theirs)


def test_normals_do_not_depend_on_chunks_or_threads(two_threads: None) -> None:
    whole = native.standard_normal(0, 0, 9, 0, 300_001)
    torch.set_num_threads(1)
    assert torch.equal(whole, native.standard_normal(0, 0, 9, 0, 300_001))
    for first, last in ((0, 1), (3, 8), (1017, 1030), (250_000, 300_001)):
        assert torch.equal(whole[first:last], native.standard_normal(0, 0, 9, first, last - first))


def test_normals_are_standard_normal() -> None:
    """Kolmogorov-Smirnov and the sum of squares, each at a false-alarm rate of 1e-3."""
    z = native.standard_normal(1, 0, 0, 0, 200_000).double().numpy()
    assert kstest(z, "norm").pvalue > 1e-3
    assert chi2(len(z)).ppf(5e-4) < (z**2).sum() < chi2(len(z)).ppf(1 - 5e-4)


@pytest.mark.parametrize("other", [{"seed": 1}, {"chain": 1}, {"step": 1}, {"stream": 1}])
def test_chains_steps_and_streams_are_uncorrelated(other: dict[str, int]) -> None:
    """False-alarm rate 1e-3 each: the correlation of 100,000 pairs is normal with standard deviation 1 / sqrt(n)."""
    key = {"seed": 0, "chain": 0, "step": 0, "stream": 0}
    a = native.standard_normal(**key, offset=0, count=100_000)
    b = native.standard_normal(**{**key, **other}, offset=0, count=100_000)
    assert abs(float((a * b).mean())) < 3.29 / np.sqrt(100_000)


SHAPES = [(3, 5), (1,), (40, 70), (2, 3, 3, 3)]
N = 500


def problem(dtype: torch.dtype = torch.float32) -> dict[str, list[Tensor]]:
    """Random weights, gradients, buffers, masses and masks."""
    generator = torch.Generator().manual_seed(0)

    def draw(scale: float) -> list[Tensor]:
        return [torch.randn(s, generator=generator).mul(scale).to(dtype) for s in SHAPES]

    return {
        "weight": draw(0.1),
        "gradient": draw(0.3),
        "buffer": draw(0.2),
        "mass": [m.abs() + 0.5 for m in draw(1.0)],
        "mask": [m > -0.5 for m in draw(1.0)],
    }


PRIOR = {"spike": 1e4, "slab": 20.0, "log_odds": -3.0, "slope": 5e3}


def prior_precision(kind: str, w: Tensor) -> Tensor:
    if kind == "flat":
        return torch.zeros_like(w)
    if kind == "gaussian":
        return torch.full_like(w, PRIOR["spike"])
    if kind == "held":
        return held_by(w) * PRIOR["slab"] + (1 - held_by(w)) * PRIOR["spike"]
    inclusion = torch.sigmoid(PRIOR["log_odds"] + PRIOR["slope"] * w.square())
    return inclusion * PRIOR["slab"] + (1 - inclusion) * PRIOR["spike"]


def held_by(w: Tensor) -> Tensor:
    return torch.arange(w.numel(), dtype=w.dtype).remainder(5).div(4).view_as(w)


def exact_noise(kind: str, step: int) -> list[Tensor]:
    sizes = [torch.Size(s).numel() for s in SHAPES]
    make = {"gaussian": noise.standard_normal, "rademacher": noise.rademacher}
    flat = torch.zeros(sum(sizes)) if kind == "none" else make[kind](5, 1, step, 3, sum(sizes))
    return [z.view(s).double() for z, s in zip(flat.split(sizes), SHAPES, strict=True)]


def table_of(parts: dict[str, list[Tensor]], prior: str, masked: bool, massive: bool) -> native.TensorTable:
    sizes = [w.numel() for w in parts["weight"]]
    table = native.TensorTable(parts["weight"], [3 + sum(sizes[:i]) for i in range(len(sizes))])
    table.point(buffer=parts["buffer"], gradient=parts["gradient"], held=[held_by(w) for w in parts["weight"]])
    if masked:
        table.point(mask=parts["mask"])
    if massive:
        table.point(mass=parts["mass"])
    for row in range(len(sizes)):
        table.set_prior(row, prior, PRIOR)
    return table


@pytest.mark.parametrize("kind", ["none", "gaussian", "rademacher"])
@pytest.mark.parametrize("prior", ["flat", "gaussian", "held", "mixture"])
@pytest.mark.parametrize(("masked", "massive"), [(False, False), (True, True)])
@pytest.mark.parametrize("rule", ["sghmc", "sgld"])
def test_a_step_is_its_equation(rule: str, kind: str, prior: str, masked: bool, massive: bool) -> None:
    lr, beta, rescale, scale = 0.01, 0.9, 1.25, 0.03
    parts, exact = problem(), problem(torch.float64)
    scalars = native.settings(
        seed=5,
        chain=1,
        stream=0,
        step=11,
        noise=kind,
        lr=lr,
        momentum=beta,
        rescale=rescale,
        noise_scale=scale,
        num_data=N,
    )
    step = native.sghmc_step if rule == "sghmc" else native.sgld_step
    step(table_of(parts, prior, masked, massive), scalars)
    for row, z in enumerate(exact_noise(kind, 11)):
        w, b, mask = exact["weight"][row], exact["buffer"][row], exact["mask"][row]
        mass = exact["mass"][row] if massive else torch.ones_like(w)
        force = exact["gradient"][row] + prior_precision(prior, w) * w / N
        if rule == "sghmc":
            b = rescale * beta * b + force - scale * mass.sqrt() * z
            w = w - lr * b / mass
        else:
            w = w - lr * force / mass + scale * mass.rsqrt() * z
        if masked:
            w = w * mask
            b = b * mask if rule == "sghmc" else b
        torch.testing.assert_close(parts["weight"][row], w.float(), rtol=1e-6, atol=2e-7)
        torch.testing.assert_close(parts["buffer"][row], b.float(), rtol=1e-6, atol=2e-6)
        if masked:
            assert torch.all(parts["weight"][row][~mask] == 0)


def test_a_step_does_not_depend_on_threads(two_threads: None) -> None:
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        w = [torch.linspace(-1, 1, 150_003), torch.linspace(0, 1, 170_001)]
        table = native.TensorTable(w, [0, w[0].numel()])
        table.point(buffer=[torch.zeros_like(x) for x in w], gradient=[x.sin() for x in w])
        for row in range(2):
            table.set_prior(row, "mixture", PRIOR)
        scalars = native.settings(
            seed=0, chain=0, stream=0, step=0, noise="gaussian", lr=0.1, momentum=0.9, noise_scale=0.1, num_data=10
        )
        native.sghmc_step(table, scalars)
        results.append(torch.cat(w))
    assert torch.equal(*results)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("at", [0, 1023, 1024, 149_999, 150_000, 320_002])
def test_one_bad_gradient_is_found_wherever_it_lies(two_threads: None, bad: float, at: int) -> None:
    gradients = [torch.full((150_000,), 3e38), torch.full((170_003,), -3e38)]
    table = native.TensorTable([torch.zeros_like(g) for g in gradients], [0, 150_000])
    table.point(gradient=gradients)
    assert native.all_finite(table)
    gradients[at >= 150_000][at - 150_000 * (at >= 150_000)] = bad
    assert not native.all_finite(table)


@pytest.mark.parametrize("size", [1, 7, 8, 1023, 1024, 300_001])
@pytest.mark.parametrize("masked", [False, True])
def test_sums_of_the_e_step_are_those_in_double_precision(size: int, masked: bool) -> None:
    w = torch.linspace(-0.1, 0.1, size)
    alive = torch.arange(size) % 3 > 0 if masked else None
    here = torch.ones(size).double() if alive is None else alive.double()
    r = torch.sigmoid(PRIOR["log_odds"] + PRIOR["slope"] * w.double().square())
    exact = [x.sum() for x in (here * r, here * r * w.double().square(), here, here * (1 - r) * w.double().square())]
    found = native.mixture_sums(w, alive, PRIOR["log_odds"], PRIOR["slope"])
    torch.testing.assert_close(torch.tensor(found, dtype=torch.float64), torch.stack(exact), rtol=2e-6, atol=1e-9)


def test_given_noise_replaces_the_counter() -> None:
    w, z = torch.zeros(10), torch.arange(10.0)
    table = native.TensorTable([w], [0])
    table.point(buffer=[torch.zeros(10)], gradient=[torch.zeros(10)], noise=[z])
    scalars = native.settings(
        seed=0, chain=0, stream=0, step=0, noise="gaussian", lr=1.0, momentum=0.0, noise_scale=1.0, num_data=1
    )
    native.sghmc_step(table, scalars)
    assert torch.equal(w, z)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("shape", [(3, 5), (40, 1100)])
def test_local_draws_are_their_equations(two_threads: None, shape: tuple[int, int], scaled: bool) -> None:
    centre, variance, dout = torch.randn(*shape), torch.rand(*shape), torch.randn(*shape)
    variance[0, 0] = 0.0  # stopped at the floor
    scale = torch.randn(shape[1]) if scaled else None
    z = native.standard_normal(7, 0, 2**33 + 5, 0, centre.numel(), stream=3).view(shape)
    std = variance.clamp(min=1e-6).sqrt()
    out, h, slope = native.local_draw((7, 3, 2**33 + 5), centre.clone(), variance.clone(), scale, 1e-6)
    assert torch.allclose(h, centre + std * z, atol=1e-5)
    assert torch.allclose(slope, z / (2 * std), rtol=1e-5)
    assert torch.equal(out, h * scale if scaled else h)
    dc, dv, sums = native.local_gradient(dout, h if scaled else None, slope, scale)
    assert torch.equal(dc, dout * scale if scaled else dout)
    assert torch.equal(dv, dc * slope)
    exact = [x.double().sum(0) for x in (dc, dv, dout * h)]
    assert all(
        torch.allclose(s.double(), e, rtol=1e-4, atol=1e-4)
        for s, e in zip(sums[: 2 + scaled], exact[: 2 + scaled], strict=True)
    )


@pytest.mark.parametrize("size", [7, 50_001])
def test_divergences_from_a_spike_are_their_equations(two_threads: None, size: int) -> None:
    mean, log_std = torch.randn(size), torch.randn(size) - 1
    law = (-4.5, 12.0)  # odds, slope: from surely spike to surely slab
    q = mean.double().square() + (2 * log_std.double()).exp()
    odds = law[0] + law[1] * q
    exact = [log_std.double().sum(), q.sum(), torch.nn.functional.softplus(odds).sum()]
    assert native.spike_sums(mean, log_std, *law) == pytest.approx([float(x) for x in exact], rel=1e-5)
    p = 25 - 24 * odds.sigmoid()
    dmean, dlog_std = native.spike_gradient(mean, log_std, *law, 25.0, 1.0, 0.3)
    assert torch.allclose(dmean.double(), 0.3 * p * mean, rtol=1e-4, atol=1e-4)
    assert torch.allclose(dlog_std.double(), 0.3 * (p * (2 * log_std.double()).exp() - 1), rtol=1e-4, atol=1e-4)


def test_rademacher_bits_are_balanced_and_uncorrelated() -> None:
    """Mean and lag-one correlation of 100,000 signs, each at a false-alarm rate of 1e-3."""
    signs = noise.rademacher(0, 0, 0, 0, 100_000)
    assert set(signs.tolist()) == {-1.0, 1.0}
    assert abs(float(signs.mean())) < 3.29 / np.sqrt(100_000)
    assert abs(float((signs[1:] * signs[:-1]).mean())) < 3.29 / np.sqrt(100_000)
    assert torch.equal(noise.rademacher(0, 0, 0, 77, 50), signs[77:127])


def test_a_scale_that_float32_cannot_hold_is_refused() -> None:
    scalars = {"seed": 0, "chain": 0, "stream": 0, "step": 0, "noise": "gaussian", "num_data": 10}
    with pytest.raises(ValueError, match=r"the scale of the noise 1e\+50; float32 cannot hold both"):
        native.settings(lr=1e-100, noise_scale=1e50, **scalars)  # type: ignore[arg-type]
