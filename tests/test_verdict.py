"""The verdict on a paper's ordering: paired by seed, with an interval, and open where seeds do not tell."""

import math

import numpy as np
import pytest

from experiments.literature import verdicts
from experiments.sun_deng.deng_resnet20 import EXPERIMENT
from experiments.verdict import differences, sentences, verdict

ORDER = ("SA", "EM", "fixed")


def of(**scores: list[float]) -> dict[str, dict[int, float]]:
    return {name: dict(enumerate(values)) for name, values in scores.items()}


def test_an_order_that_holds_is_contradicted_or_is_open() -> None:
    clear = of(SA=[0.92, 0.93, 0.91], EM=[0.90, 0.911, 0.889], fixed=[0.88, 0.89, 0.87])
    assert verdict(differences(ORDER, clear)) == "holds"
    assert verdict(differences(("EM", "SA", "fixed"), clear)) == "contradicted"
    near = clear | of(EM=[0.93, 0.91, 0.92])
    assert verdict(differences(ORDER, near)) == "open"


def test_differences_are_paired_by_seed() -> None:
    """Seeds that differ by 0.1 do not hide a difference of 0.01 that each of them has."""
    scores = {"a": {0: 0.91, 1: 0.81, 2: 0.711, 9: 0.0}, "b": {0: 0.9, 1: 0.8, 2: 0.7}}
    (one,) = differences(("a", "b"), scores)
    assert (one.seeds, one.answer) == (3, "holds")
    assert one.mean == pytest.approx(0.031 / 3)


def test_one_seed_is_open_and_says_so() -> None:
    found = differences(("SA", "fixed"), of(SA=[0.9], fixed=[0.5]))
    assert verdict(found) == "open"
    assert math.isnan(found[0].half)
    assert sentences("90%", found) == "90%: the paper's order is open: SA minus fixed +0.4000 (one seed)."


def test_equal_methods_are_told_apart_as_often_as_the_interval_says() -> None:
    """2,000 pairs of equal methods, five seeds: 5 % are told apart; five binomial standard errors either way."""
    rng = np.random.default_rng(0)
    told = 0
    for _ in range(2000):
        draws = rng.standard_normal((2, 5)).tolist()
        told += verdict(differences(("a", "b"), of(a=draws[0], b=draws[1]))) != "open"
    assert told / 2000 == pytest.approx(0.05, abs=0.025)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no score of EM, which the order names"):
        differences(ORDER, of(SA=[1.0], fixed=[1.0]))
    with pytest.raises(ValueError, match="a and b have no seed in common"):
        differences(("a", "b"), {"a": {0: 1.0}, "b": {1: 1.0}})


def test_an_experiment_judges_its_claim_at_every_target() -> None:
    """Three variants, two seeds, two targets; at the second the order is turned round."""

    def run(seed: int, at: float) -> dict[str, object]:
        rows = [
            {"when": "in_chain", "criterion": "c", "decision": "target", "target": t, "accuracy": a + 0.001 * seed}
            for t, a in ((0.5, at), (0.9, 1 - at))
        ]
        return {"seed": seed, "dense": {"accuracy": 0.9}, "pruned": rows}

    accuracies = dict(zip(EXPERIMENT.claim, (0.9, 0.8, 0.7), strict=True))
    cells = {v: [run(seed, a + 0.0001 * i * seed) for seed in (0, 1)] for i, (v, a) in enumerate(accuracies.items())}
    lines = verdicts(EXPERIMENT, cells)
    assert [line.partition(":")[0] for line in lines] == ["in the chain, 50%", "in the chain, 90%"]
    assert "the paper's order holds" in lines[0]
    assert "the paper's order is contradicted" in lines[1]
    assert verdicts(EXPERIMENT, {"fixed": cells["fixed"]}) == []
