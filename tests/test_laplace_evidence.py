"""The Laplace evidence against exact Bayesian linear regression, dense matrices and its own stationarity conditions."""

import itertools
import math
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from sgmcmc_prune.baselines.laplace import PrecisionPrior, PriorUpdate, curvature, log_evidence, well_determined
from sgmcmc_prune.baselines.laplace.blocks import DiagonalBlock, KroneckerBlock
from sgmcmc_prune.baselines.laplace.curvature import Curvature
from sgmcmc_prune.likelihoods import gaussian


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def positive_definite(size: int, seed: int) -> Tensor:
    root = torch.randn(size, size, generator=generator(seed), dtype=torch.float64)
    return root @ root.T + 0.1 * torch.eye(size, dtype=torch.float64)


def diagonal_problem(*shape: int, seed: int = 0) -> tuple[Curvature, dict[str, Tensor]]:
    """A diagonal curvature over several orders of magnitude, and weights."""
    h = (2 * torch.randn(shape, generator=generator(seed), dtype=torch.float64)).exp()
    return Curvature({"w": DiagonalBlock("w", h)}, -3.0, 0), {
        "w": torch.randn(shape, generator=generator(seed + 1), dtype=torch.float64)
    }


class TestLinearRegression:
    """N(y; 0, X diag(1/delta) X' + s^2 I) is the evidence exactly: the log joint is quadratic."""

    def setup_method(self) -> None:
        self.x = torch.randn(20, 3, generator=generator(), dtype=torch.float64)
        self.y = self.x @ torch.tensor([1.0, -0.5, 0.0], dtype=torch.float64)
        self.y = self.y + 0.4 * torch.randn(20, generator=generator(1), dtype=torch.float64)
        self.noise = 0.3

    def exact(self, delta: Tensor) -> float:
        covariance = self.x @ torch.diag(1 / delta) @ self.x.T + self.noise * torch.eye(20, dtype=torch.float64)
        square = self.y @ torch.linalg.solve(covariance, self.y)
        return -0.5 * float(torch.logdet(covariance) + square + 20 * math.log(2 * math.pi))

    def laplace(self, delta: Tensor, structure: str) -> float:
        """The Laplace evidence at the posterior mode."""
        model = nn.Linear(3, 1, bias=False).double()
        hessian = self.x.T @ self.x / self.noise + torch.diag(delta)
        model.weight.data = torch.linalg.solve(hessian, self.x.T @ self.y / self.noise)[None]
        found = curvature(model, self.x, self.y, structure=structure, likelihood=gaussian(self.noise))  # type: ignore[arg-type]
        return float(log_evidence(found, {"weight": model.weight}, {"weight": delta.log()[None]}))

    def test_kfac_is_exact_for_one_output_and_one_precision(self) -> None:
        delta = torch.full((3,), 0.7, dtype=torch.float64)
        assert self.laplace(delta, "kfac") == pytest.approx(self.exact(delta), abs=1e-10)

    def test_diagonal_and_rotated_priors_bound_the_evidence_from_below(self) -> None:
        delta = torch.tensor([0.2, 1.0, 5.0], dtype=torch.float64)
        assert self.laplace(delta, "kfac") < self.exact(delta)
        assert self.laplace(delta, "diagonal") < self.exact(delta)

    def test_diagonal_is_exact_for_orthogonal_inputs(self) -> None:
        self.x = torch.linalg.qr(self.x).Q * torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
        delta = torch.tensor([0.2, 1.0, 5.0], dtype=torch.float64)
        assert self.laplace(delta, "diagonal") == pytest.approx(self.exact(delta), abs=1e-10)


class TestKroneckerBlock:
    """Against the dense matrix B (x) A / T + diag(delta)."""

    def setup_method(self) -> None:
        self.a, self.b = positive_definite(5, 0), positive_definite(6, 1)
        self.block = KroneckerBlock("w", self.a, self.b)
        self.delta = (2 * torch.randn(6, 5, generator=generator(2), dtype=torch.float64)).exp()

    def dense(self, delta: Tensor, temperature: float) -> Tensor:
        return torch.kron(self.b, self.a) / temperature + torch.diag(delta.flatten())

    @pytest.mark.parametrize("temperature", [1.0, 0.2])
    def test_log_det_is_exact_for_one_precision_and_an_upper_bound_for_many(self, temperature: float) -> None:
        one = torch.full_like(self.delta, 0.3)
        exact = torch.logdet(self.dense(one, temperature)) - one.log().sum()
        assert float(self.block.log_det_ratio(one.log(), temperature)) == pytest.approx(float(exact), rel=1e-12)
        exact = torch.logdet(self.dense(self.delta, temperature)) - self.delta.log().sum()
        assert float(self.block.log_det_ratio(self.delta.log(), temperature)) > float(exact)

    @pytest.mark.parametrize("temperature", [1.0, 0.2])
    def test_trace_and_diagonal_are_exact(self, temperature: float) -> None:
        dense = self.dense(self.delta, temperature)
        rotated = self.block._rotated(self.delta, temperature)
        assert float(rotated.sum()) == pytest.approx(float(dense.trace()), rel=1e-12)
        diagonal = self.block.posterior_precision(self.delta, temperature)
        torch.testing.assert_close(diagonal.flatten(), dense.diagonal())

    def test_whitening_is_an_inverse_square_root(self) -> None:
        one = torch.full_like(self.delta, 0.3)
        columns = [self.block.whiten(e.view(6, 5), one, 0.5).flatten() for e in torch.eye(30, dtype=torch.float64)]
        root = torch.stack(columns, 1)
        torch.testing.assert_close(root @ root.T, torch.linalg.inv(self.dense(one, 0.5)))

    def test_an_indefinite_factor_is_refused(self) -> None:
        with pytest.raises(ValueError, match="the output factor of 'w' has the eigenvalue -1"):
            KroneckerBlock("w", self.a, torch.diag(torch.tensor([-1.0, 2.0])))


class TestPriorStructures:
    """How free parameters become one precision per weight."""

    parameters: ClassVar = {"w": torch.zeros(3, 4), "conv": torch.zeros(2, 3, 5, 5), "b": torch.zeros(3)}

    @pytest.mark.parametrize(
        ("structure", "count"),
        [("scalar", 1), ("layerwise", 3), ("unitwise", 3 + 4 + 2 + 3 + 3), ("parameterwise", 12 + 150 + 3)],
    )
    def test_number_of_free_parameters_and_start(self, structure: str, count: int) -> None:
        prior = PrecisionPrior(structure, self.parameters, 2.5)  # type: ignore[arg-type]
        assert sum(t.numel() for t in prior.free) == count
        for name, delta in prior.precision().items():
            assert delta.shape == self.parameters[name].shape
            torch.testing.assert_close(delta, torch.full_like(delta, 2.5))

    def test_unitwise_log_precisions_add_outputs_and_inputs(self) -> None:
        prior = PrecisionPrior("unitwise", self.parameters)
        outputs, inputs = prior.terms["conv"]
        outputs.data.copy_(torch.tensor([1.0, 2.0]).view(2, 1, 1, 1))
        inputs.data.copy_(torch.tensor([10.0, 20.0, 30.0]).view(1, 3, 1, 1))
        expected = torch.tensor([[11.0, 21.0, 31.0], [12.0, 22.0, 32.0]]).double()
        torch.testing.assert_close(prior.log_precision()["conv"], expected[:, :, None, None].expand(2, 3, 5, 5))

    def test_bad_input(self) -> None:
        with pytest.raises(ValueError, match="prior is 'diagonal'; choose one of scalar, layerwise, unitwise"):
            PrecisionPrior("diagonal", self.parameters)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"prior precision is 0; it must be finite and > 0"):
            PrecisionPrior("scalar", self.parameters, 0)


@pytest.mark.parametrize("temperature", [1.0, 0.2])
def test_closed_form_is_stationary(temperature: float) -> None:
    problem, weights = diagonal_problem(8, 5)
    prior = PrecisionPrior("parameterwise", weights)
    PriorUpdate(prior, "closed_form")(problem, weights, temperature)
    log_evidence(problem, weights, prior.log_precision(), temperature).backward()
    assert float(prior.free[0].grad.abs().max()) < 1e-12  # type: ignore[union-attr]
    delta, h = prior.precision()["w"], problem.blocks["w"].curvature / temperature  # type: ignore[attr-defined]
    torch.testing.assert_close(delta, h / 2 * ((1 + 4 / (h * weights["w"].square())).sqrt() - 1))


@pytest.mark.parametrize("structure", ["scalar", "layerwise", "unitwise", "parameterwise"])
def test_mackay_climbs_to_where_determined_weights_equal_the_scatter(structure: str) -> None:
    problem, weights = diagonal_problem(8, 5)
    prior = PrecisionPrior(structure, weights)  # type: ignore[arg-type]
    trace = PriorUpdate(prior, "mackay", steps=60)(problem, weights, 0.5)
    assert all(later >= earlier - 1e-9 for earlier, later in itertools.pairwise(trace))
    log_evidence(problem, weights, prior.log_precision(), 0.5).backward()
    assert max(float(t.grad.abs().max()) for t in prior.free) < 1e-9  # type: ignore[union-attr]
    gamma = float(well_determined(problem.blocks, prior.log_precision(), 0.5)["w"].sum())
    assert gamma == pytest.approx(float((prior.precision()["w"] * weights["w"].square()).sum()), rel=1e-9)


@pytest.mark.parametrize("structure", ["scalar", "layerwise"])
def test_mackay_serves_kfac_where_the_precision_is_one_number(structure: str) -> None:
    block = KroneckerBlock("w", positive_definite(5, 0), positive_definite(4, 1))
    weights = {"w": torch.randn(4, 5, generator=generator(3), dtype=torch.float64)}
    prior = PrecisionPrior(structure, weights, 100.0)  # type: ignore[arg-type]
    trace = PriorUpdate(prior, "mackay", steps=60)(Curvature({"w": block}, 0.0, 0), weights)
    assert all(later >= earlier - 1e-9 for earlier, later in itertools.pairwise(trace))
    delta = prior.precision()["w"][0, 0]
    gamma = (block.eigenvalues / (block.eigenvalues + delta)).sum()
    assert float(delta * weights["w"].square().sum()) == pytest.approx(float(gamma), rel=1e-9)


def test_adam_climbs_to_the_closed_form() -> None:
    problem, weights = diagonal_problem(4, 3)
    prior, exact = (PrecisionPrior("parameterwise", weights) for _ in range(2))
    update = PriorUpdate(prior, "adam", steps=200, lr=0.1)
    trace = update(problem, weights)
    assert all(later >= earlier - 1e-6 for earlier, later in itertools.pairwise(trace[:20]))
    trace += update(problem, weights)  # the optimiser's state goes on
    PriorUpdate(exact, "closed_form")(problem, weights)
    best = float(log_evidence(problem, weights, exact.log_precision()).detach())
    assert trace[0] < trace[-1] <= best + 1e-9
    assert trace[-1] == pytest.approx(best, abs=1e-3)


def test_adam_climbs_the_rotated_kronecker_evidence() -> None:
    block = KroneckerBlock("w", positive_definite(5, 0), positive_definite(4, 1))
    weights = {"w": torch.randn(4, 5, generator=generator(3), dtype=torch.float64)}
    for structure in ("unitwise", "parameterwise"):
        prior = PrecisionPrior(structure, weights)  # type: ignore[arg-type]
        update = PriorUpdate(prior, "adam", steps=20, lr=0.02)
        trace = update(Curvature({"w": block}, 0.0, 0), weights)
        assert all(later >= earlier for earlier, later in itertools.pairwise(trace))


def test_masked_weights_take_no_part_in_the_evidence() -> None:
    """No curvature and a zero weight: whatever the precision, the evidence is that of the other weights."""
    problem, weights = diagonal_problem(6, 4)
    kept = torch.rand(6, 4, generator=generator(5)) > 0.4
    h = problem.blocks["w"].curvature  # type: ignore[attr-defined]
    masked = Curvature({"w": DiagonalBlock("w", h * kept)}, -3.0, 0)
    zeroed = {"w": weights["w"] * kept}
    alone = Curvature({"w": DiagonalBlock("w", h[kept])}, -3.0, 0)
    eta = torch.randn(6, 4, generator=generator(6), dtype=torch.float64)
    assert float(log_evidence(masked, zeroed, {"w": eta})) == pytest.approx(
        float(log_evidence(alone, {"w": weights["w"][kept]}, {"w": eta[kept]})), rel=1e-12
    )
    for method in ("mackay", "closed_form", "adam"):
        prior = PrecisionPrior("parameterwise", weights, 2.0)
        PriorUpdate(prior, method, steps=3)(masked, zeroed)  # type: ignore[arg-type]
        assert bool((prior.precision()["w"][~kept] == prior.precision()["w"][~kept][0]).all())
        assert float(prior.precision()["w"][~kept][0]) == pytest.approx(2.0)
    assert bool((well_determined(masked.blocks, {"w": eta})["w"][~kept] == 0).all())


def test_weights_at_the_edges_stay_in_range() -> None:
    """theta = 0 with curvature wants an infinite precision, and curvature 0 with theta != 0 none at all."""
    block = DiagonalBlock("w", torch.tensor([1.0, 0.0, 2.0]))
    weights = {"w": torch.tensor([0.0, 1.0, 3.0])}
    for method in ("closed_form", "mackay"):
        prior = PrecisionPrior("parameterwise", weights)
        PriorUpdate(prior, method, steps=50)(Curvature({"w": block}, 0.0, 0), weights)  # type: ignore[arg-type]
        low, high = prior.log_precision()["w"][[1, 0]].tolist()
        assert (low, high) == (-20.0, 20.0)


def test_a_relevant_input_keeps_a_small_precision_and_a_noise_input_does_not() -> None:
    x = torch.randn(200, 2, generator=generator(), dtype=torch.float64)
    y = x[:, 0] + 0.3 * torch.randn(200, generator=generator(1), dtype=torch.float64)
    model = nn.Linear(2, 1, bias=False).double()
    prior = PrecisionPrior("parameterwise", {"weight": model.weight})
    for _ in range(10):  # the mode given the precisions, then the precisions given the mode
        hessian = x.T @ x / 0.09 + torch.diag(prior.precision()["weight"][0])
        model.weight.data = torch.linalg.solve(hessian, x.T @ y / 0.09)[None]
        found = curvature(model, x, y, likelihood=gaussian(0.09))
        PriorUpdate(prior, "closed_form")(found, {"weight": model.weight})
    relevant, noise = prior.precision()["weight"][0].tolist()
    assert relevant == pytest.approx(1 / float(model.weight[0, 0].detach()) ** 2, rel=0.02)
    assert noise > 100 * relevant


def test_methods_that_do_not_apply_are_refused() -> None:
    weights = {"w": torch.ones(4, 5)}
    block = KroneckerBlock("w", positive_definite(5, 0), positive_definite(4, 1))
    with pytest.raises(ValueError, match="a scalar prior has no closed-form update; use 'mackay' or 'adam'"):
        PriorUpdate(PrecisionPrior("scalar", weights), "closed_form")
    with pytest.raises(ValueError, match="prior update is 'lbfgs'; choose one of adam, mackay, closed_form"):
        PriorUpdate(PrecisionPrior("scalar", weights), "lbfgs")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the mackay update of a unitwise prior needs diagonal curvature"):
        PriorUpdate(PrecisionPrior("unitwise", weights), "mackay")(Curvature({"w": block}, 0.0, 0), weights)
    with pytest.raises(ValueError, match="take at least 1"):
        PriorUpdate(PrecisionPrior("scalar", weights), steps=0)


def test_temperature_divides_the_likelihood_alone() -> None:
    problem, weights = diagonal_problem(4)
    eta = torch.randn(4, generator=generator(9), dtype=torch.float64)
    hot = float(log_evidence(problem, weights, {"w": eta}, 0.25))
    counted_four_times = Curvature({"w": DiagonalBlock("w", 4 * problem.blocks["w"].curvature)}, -12.0, 0)  # type: ignore[attr-defined]
    assert hot == pytest.approx(float(log_evidence(counted_four_times, weights, {"w": eta})))
    h, theta, delta = problem.blocks["w"].curvature * 4, weights["w"], eta.exp()  # type: ignore[attr-defined]
    by_hand = -12 - 0.5 * ((h + delta).log().sum() - eta.sum() + (delta * theta.square()).sum())
    assert hot == pytest.approx(float(by_hand))
    assert math.isfinite(hot)
