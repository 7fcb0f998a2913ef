"""Certification: exact laws, calibrated p-values, verdicts, and a quick suite that passes.

What happens when a bug is planted is in test_certify_planted.py.
"""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.linalg import solve_discrete_lyapunov
from scipy.stats import chisquare, kstest, norm

from sgmcmc_prune.certify import recursions
from sgmcmc_prune.certify.logistic import REFERENCE, quadrature_target
from sgmcmc_prune.certify.recursions import Quadratic, stationary
from sgmcmc_prune.certify.statistics import (
    Label,
    Row,
    anderson_darling_tail,
    deviate_row,
    distribution_rows,
    equality_row,
    holm,
    mean_row,
)
from sgmcmc_prune.certify.suite import certify, full_suite, quick_suite
from sgmcmc_prune.certify.table import FAIL, MISSED, MUST_FAIL, PASS, Certificate
from sgmcmc_prune.diagnostics import symplectic_euler_variance_factor

LABEL = Label("sampler", "identity", "target")
STEPS = [recursions.sgld, recursions.sghmc, recursions.baoab, recursions.obabo]


def one_dimension(momentum: float = 0.7) -> Quadratic:
    return Quadratic(np.array([[2.0]]), 0.3, 50, np.array([1.5]), momentum, temperature=0.8)


@pytest.mark.parametrize(
    ("step", "factor"),
    [
        (recursions.sgld, 1 / (1 - 0.3 * 2 / 1.5 / 2)),
        (recursions.sghmc, symplectic_euler_variance_factor(0.3 * 2 / 1.5, 0.7)),
        (recursions.baoab, 1.0),
        (recursions.obabo, symplectic_euler_variance_factor(0.3 * 2 / 1.5, 0.7)),
    ],
)
def test_the_law_has_the_closed_form_in_one_dimension(step: recursions.Step, factor: float) -> None:
    assert stationary(one_dimension(), step).covariance[0, 0] == pytest.approx(0.8 / (50 * 2) * factor)


@pytest.mark.parametrize("step", STEPS)
def test_doubling_solves_the_lyapunov_equation(step: recursions.Step) -> None:
    rng = np.random.default_rng(0)
    root = rng.standard_normal((4, 4))
    problem = Quadratic(root @ root.T + np.eye(4), 0.05, 30, rng.uniform(1, 2, 4), 0.8, 1.3, 0.1)
    maps = np.vstack(step(problem))
    noise = maps[:, 8:] * np.sqrt(np.repeat([1.0, 0.1], 4))
    expected = solve_discrete_lyapunov(maps[:, :8], noise @ noise.T)
    np.testing.assert_allclose(stationary(problem, step).covariance, expected, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_is_too_long_is_refused(step: recursions.Step) -> None:
    with pytest.raises(ValueError, match="no stationary law"):
        stationary(Quadratic(np.array([[2.0]]), 4.0, 50, np.array([1.0]), 0.7), step)


def test_a_start_is_forgotten_in_the_relaxation_time() -> None:
    problem = one_dimension()
    law = stationary(problem, recursions.baoab)
    power = np.linalg.matrix_power(np.vstack(recursions.baoab(problem))[:, :2], law.relaxation)
    assert 1e-4 < np.abs(power).max() < 1e-2


def test_p_values_of_means_are_uniform() -> None:
    """Student's test on logs of chi-squares: a Kolmogorov-Smirnov test over 2000 tables, false alarm at 1e-3."""
    rng = np.random.default_rng(1)
    p = [mean_row(LABEL, "s", 10.0, rng.chisquare(10, 512), log=True).p_value for _ in range(2000)]
    assert kstest(p, "uniform").pvalue > 1e-3


def test_p_values_of_distribution_tests_are_uniform() -> None:
    """Of Anderson-Darling only small p-values are meant to be exact; false alarms at 1e-3 each."""
    rng = np.random.default_rng(2)
    rows = [distribution_rows(LABEL, rng.standard_normal(300)) for _ in range(1500)]
    assert kstest([smirnov.p_value for smirnov, _ in rows], "uniform").pvalue > 1e-3
    rejected = sum(anderson.p_value < 0.05 for _, anderson in rows)
    assert chisquare([rejected, 1500 - rejected], [0.055 * 1500, 0.945 * 1500]).pvalue > 1e-3


@pytest.mark.parametrize(("square", "p"), [(2.492, 0.05), (3.857, 0.01), (5.97, 0.001)])
def test_the_tail_of_anderson_darling(square: float, p: float) -> None:
    """Published critical points of A^2 for a known law; the tail formula is low by an eighth at 5 %."""
    assert anderson_darling_tail(square) == pytest.approx(p, rel=0.13)
    assert anderson_darling_tail(0.0) == 1


def test_a_shift_and_a_wrong_width_are_rejected_by_both_distribution_tests() -> None:
    normals = np.random.default_rng(3).standard_normal(4000)
    for wrong in (normals + 0.15, 1.2 * normals):
        assert all(row.p_value < 1e-6 for row in distribution_rows(LABEL, wrong))
    (row,) = distribution_rows(LABEL, np.array([0.0, math.nan]))
    assert row.p_value == 0


def test_few_replicates_are_refused() -> None:
    with pytest.raises(ValueError, match="64 replicates"):
        mean_row(LABEL, "s", 0.0, np.zeros(63))


def test_what_is_not_finite_is_rejected() -> None:
    assert deviate_row(LABEL, "s", 0.0, math.nan, 1.0, 63).p_value == 0
    assert equality_row(LABEL, "s", 0.0, math.nan, 1.0).p_value == 0
    assert mean_row(LABEL, "s", 1.0, np.full(64, math.inf), log=True).p_value == 0


def test_holm() -> None:
    assert holm([0.04, 0.001, 0.03, 0.0125], 0.05) == [False, True, False, True]
    assert holm([0.9, 0.8], 0.05) == [False, False]
    with pytest.raises(ValueError, match="false_alarm is 0"):
        holm([0.5], 0)


def row(z: float, must_fail: bool = False) -> Row:
    return Row("s", "identity", "t", "x", 0.0, z, 1.0, z, float(2 * norm.sf(abs(z))), must_fail)


def test_verdicts() -> None:
    rows = [row(0.3), row(8.0), row(9.0, must_fail=True), row(0.1, must_fail=True)]
    certificate = Certificate(rows, 1e-3, 0, True, 1.0)
    assert certificate.verdicts == [PASS, FAIL, MUST_FAIL, MISSED]
    assert not certificate.passed
    assert Certificate([rows[0], rows[2]], 1e-3, 0, True, 1.0).passed
    assert "4 rows, 2 WRONG (1 fail, as they must)" in certificate.format()


def test_the_files_of_a_certificate(tmp_path: Path) -> None:
    rows = [row(0.3), row(-2.0), row(9.0, must_fail=True), replace(row(math.inf), target="u", estimate=math.nan)]
    Certificate(rows, 1e-3, 0, True, 1.0).write(tmp_path / "c.json", "the command")
    written = json.loads((tmp_path / "c.json").read_text())
    assert [line["verdict"] for line in written["rows"]] == [PASS, PASS, MUST_FAIL, FAIL]
    assert written["rows"][3]["estimate"] is None
    assert not written["passed"]
    page = (tmp_path / "c.md").read_text()
    assert "    the command" in page
    assert "9.00  pass, fails, as it must" in page


def test_the_nuts_reference_agrees_with_quadrature() -> None:
    """Four z-scores, two-sided with Bonferroni at 1e-3."""
    import sgmcmc_prune.certify as package

    reference = json.loads((Path(package.__file__).parent / REFERENCE).read_text())["d = 2"]
    z = [(reference[m.name][0] - m.exact) / reference[m.name][1] for m in quadrature_target().moments]
    assert max(map(abs, z)) < norm.isf(1e-3 / 2 / 4)


def test_quadrature_is_converged() -> None:
    """The mean of the score is zero, but for what lies outside the window."""
    target = quadrature_target()
    points, weights = target.grid
    p = 1 / (1 + np.exp(-points @ target.features.T))
    score = (target.responses - p) @ target.features - target.prior_precision * points
    assert np.abs(weights @ score).max() < 1e-7


def test_every_sampler_is_in_both_suites() -> None:
    for suite in (quick_suite(), full_suite()):
        names = {getattr(case, "sampler", "") for case in suite}
        assert names >= {"SGLD", "SGHMC", "BAOAB", "OBABO", "SGNHT", "AdaptiveSGHMC", "AdaptiveSGHMC, as released"}


@pytest.mark.parametrize("arguments", [{"seed": -1}, {"seed": 4000}, {"false_alarm": 0.0}])
def test_bad_arguments_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        certify(quick=True, **arguments)  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_quick_certification_passes() -> None:
    """Another seed than the default; false alarms at 1e-3."""
    certificate = certify(quick=True, seed=1)
    assert certificate.passed, certificate.format()
