"""The sentences that a run and its page begin with: the rule that chooses the network, its noise, what is not known."""

from typing import Any

import numpy as np
import pytest

from sgmcmc_prune.predictive.intervals import wilson_interval
from sgmcmc_prune.run.headline import best_rows, headline, noise_line, prices, score_noise
from sgmcmc_prune.run.tables import interval_lines

RMSE = {"scores": {"rmse": "RMSE", "nll": "NLL"}, "higher_is_better": False}
NLL = {"scores": {"nll": "NLL"}, "higher_is_better": False}


def row(sparsity: float, first: float | None, criterion: str = "magnitude", **changes: Any) -> dict[str, Any]:
    """A pruned row; `first` is its score under every name."""
    named = {"criterion": criterion, "when": "post_hoc", "decision": "target", "target": sparsity, "sparsity": sparsity}
    return {**named, "accuracy": first, "rmse": first, "nll": first, **changes}


def metrics(dense: float | None, *pruned: dict[str, Any], rhat: float | None = 1.004, **changes: Any) -> dict[str, Any]:
    """Metrics of a run of 10,000 examples, whose NLL is known where it is the first score."""
    nll = dense if changes.get("scores") == NLL["scores"] else None
    return {
        "split": "test",
        "examples": 10_000,
        "departures": 3,
        "dense": {"accuracy": dense, "rmse": dense, "nll": nll},
        "pruned": list(pruned),
        "diagnostics": {"logits": {"rhat_max": rhat}, "probability": {"rhat_max": rhat}},
        **changes,
    }


def test_the_largest_sparsity_whose_loss_is_within_its_noise() -> None:
    rows = [row(0.8, 0.91), row(0.95, 0.898, "expected_log_odds", when="in_chain"), row(0.98, 0.85)]
    assert headline(metrics(0.9, *rows, rhat=1.41)) == [
        "At 95 % sparsity this network loses 0.2 ± 0.6 points of accuracy, from 90.0 % "
        "on 10,000 test examples (in the chain, expected log odds).",
        "The chains have not converged in function space (R-hat up to 1.4).",
        "Three things depart from the posterior.",
    ]


def test_few_examples_are_said_to_tell_nothing() -> None:
    said = headline(metrics(0.867, row(0.81, 0.734), examples=15))[0]
    assert said.startswith("At 81 % sparsity this network loses 13.3 ± ")
    assert "from 86.7 % on 15 test examples (post hoc, magnitude)" in said
    assert said.endswith("15 examples are too few to tell how far it can be pruned.")


def test_of_several_at_one_sparsity_the_one_that_loses_least() -> None:
    rows = [row(0.9, 0.897), row(0.9001, 0.899, "random"), row(0.9, 0.7, "signal_to_noise")]
    assert (
        "loses 0.1 ± 0.6 points of accuracy, from 90.0 % on 10,000 test examples (post hoc, random)"
        in headline(metrics(0.9, *rows))[0]
    )


def test_a_gain_in_the_chain_is_not_put_down_to_pruning() -> None:
    assert headline(metrics(0.9, row(0.9, 0.92, when="in_chain")))[0] == (
        "At 90 % sparsity this network gains 2.0 ± 0.5 points of accuracy, from 90.0 % on 10,000 test examples "
        "(in the chain, magnitude; the chain trained on)."
    )


def test_a_little_more_sparsity_does_not_outweigh_a_better_network() -> None:
    rows = [row(0.98, 0.902, "random"), row(0.9823, 0.898)]
    assert headline(metrics(0.9, *rows))[0].startswith("At 98 % sparsity this network gains 0.2 ± 0.6 points")
    rows[1]["sparsity"] = 0.983
    assert headline(metrics(0.9, *rows))[0].startswith("At 98.3 % sparsity this network loses 0.2 ± 0.6 points")
    rows[1]["sparsity"] = 1.0
    assert headline(metrics(0.9, *rows))[0].startswith("At 100 % sparsity")


def test_the_edge_of_the_noise_belongs_to_it() -> None:
    base = metrics(0.9)
    noise = score_noise(base, row(0.9, 0.89), "accuracy")
    assert noise is not None
    (price,) = prices({**base, "pruned": [row(0.9, 0.89)]})
    assert price.allowed == price.noise == noise
    low, high = wilson_interval(0.89, 10_000)
    assert noise == max(0.89 - low, high - 0.89) == 0.89 - low
    for within, start in ((noise - 1e-9, "At 90 %"), (noise + 1e-9, "Every pruned")):
        found = headline({**base, "dense": {"accuracy": 0.89 + within}, "pruned": [row(0.9, 0.89)]})[0]
        assert found.startswith(start)


def test_where_every_network_loses_the_one_that_loses_least() -> None:
    assert headline(metrics(0.9, row(0.5, 0.88), row(0.9, 0.8)))[0] == (
        "Every pruned network loses more than its noise; the best of them, at 50 % sparsity (post hoc, magnitude), "
        "loses 2.0 ± 0.7 points of accuracy, from 90.0 % on 10,000 test examples."
    )


def test_a_starved_network_is_no_recommendation_while_there_is_another() -> None:
    starved = row(0.98, 0.9, starved=["conv3.weight"])
    assert headline(metrics(0.9, row(0.8, 0.9, starved=[]), starved))[0].startswith("At 80 % sparsity this network")
    found = headline(metrics(0.9, row(0.8, 0.8, starved=[]), starved))[0]
    assert found.startswith(
        "Every pruned network that is not starved loses more than its noise; the best of them, at 80 %"
    )


def test_where_all_are_starved_the_sentence_says_so_and_on_how_many_examples_it_was_judged() -> None:
    starved = [row(s, 0.9 - loss, starved=["conv3.weight", "fc.weight"]) for s, loss in ((0.98, 0.0), (0.99, 0.6))]
    assert headline(metrics(0.9, *starved, examples=100))[0] == (
        "At 98 % sparsity this network loses 0.0 ± 7.4 points of accuracy, from 90.0 % on 100 test examples (post hoc, "
        "magnitude), but it is starved: almost nothing passes conv3.weight, fc.weight. 100 examples are too few to "
        "tell how far it can be pruned."
    )
    assert headline(metrics(0.9, starved[1]))[0].endswith(
        "from 90.0 % on 10,000 test examples, but it is starved: almost nothing passes conv3.weight, fc.weight."
    )


def test_decisions_without_a_target_are_named_and_sparsities_not_rounded_up() -> None:
    found = row(0.9995, 0.9, "inclusion_probability", decision="fdr", level=0.1, target=None)
    assert headline(metrics(0.9, found))[0].endswith("(post hoc, inclusion probability, fdr 0.1).")
    assert headline(metrics(0.9, found))[0].startswith("At 99.95 % sparsity")


def test_numbers_are_compared_by_their_share_and_without_an_interval_have_no_noise() -> None:
    rows = [row(0.5, 0.463), row(0.7, 0.641)]
    assert headline(metrics(0.457, *rows, **RMSE))[0] == (
        "At 50 % sparsity this network has an RMSE 1.3 % above the dense 0.457 on 10,000 test examples (post hoc, "
        "magnitude)."
    )
    assert "has an RMSE 1.1 % below the dense 0.460" in headline(metrics(0.46, row(0.5, 0.455), **RMSE))[0]
    assert headline(metrics(0.457, row(0.7, 0.641), **RMSE))[0].startswith("Every pruned network loses more than 5 %;")
    assert noise_line(metrics(0.457, *rows, **RMSE)) == (
        "The headline is about the sparsest pruned network, of those whose loss is no larger than 5 %; the noise of "
        "its score is not known."
    )
    assert "from an NLL of -0.002" in headline(metrics(-0.002, row(0.5, 0.005), **NLL))[0]


def test_a_difference_has_its_paired_noise() -> None:
    """It decides which network the sentence is about, and of an RMSE it is told as a share of the dense one."""
    found = metrics(0.457, row(0.5, 0.463, paired={"rmse": 0.0091}), row(0.7, 0.469, paired={"rmse": 0.01}), **RMSE)
    assert headline(found)[0] == (
        "At 50 % sparsity this network has an RMSE 1.3 ± 2.0 % above the dense 0.457 on 10,000 test examples (post "
        "hoc, magnitude)."
    )
    assert noise_line(found) == (
        "± in the headline: half of the 95 % interval of the difference, paired by example, over 10,000 test examples. "
        "The headline is about the sparsest pruned network, of those whose loss is no larger than that; it was chosen "
        "on these examples, which flatters it a little."
    )
    half = {"half_width": {"rmse": 0.0312}}  # of each alone: not that of the difference
    wide = metrics(0.457, row(0.7, 0.469, **half, paired={"rmse": 0.01}), **RMSE)
    assert headline(wide)[0].startswith("Every pruned network loses more than its noise; the best of them, at 70 %")
    assert "has an RMSE 2.6 ± 2.2 % above" in headline(wide)[0]
    assert "loses 0.5 ± 0.3 points" in headline(metrics(0.9, row(0.9, 0.895, paired={"accuracy": 0.003})))[0]
    nats = metrics(-0.2, row(0.5, -0.194, paired={"nll": 0.0071}), **NLL)
    assert "loses 0.006 ± 0.007 nats for each example, from an NLL of -0.200 on" in headline(nats)[0]
    few = metrics(1.0, row(0.5, 1.1, paired={"rmse": 0.2}), examples=31, **RMSE)
    assert headline(few)[0].endswith(" 31 examples are too few to tell how far it can be pruned.")
    alone = metrics(0.457, **RMSE)
    alone["dense"] |= half
    assert headline(alone)[0] == "This network has an RMSE of 0.457 ± 0.031; nothing was pruned."


def test_an_interval_of_one_score_is_no_interval_of_a_difference() -> None:
    """Only that of an accuracy takes its place, where no pairs are known; of others there is none."""
    half = {"half_width": {"rmse": 0.0312, "accuracy": 0.04}}
    for unpaired in ({}, {"paired": {}}, {"paired": {"nll": 0.1}}):
        found = metrics(0.457, row(0.5, 0.463, **half, **unpaired), **RMSE)
        assert "has an RMSE 1.3 % above the dense 0.457" in headline(found)[0]
        assert noise_line(found).endswith("; the noise of its score is not known.")
        found = metrics(0.9, row(0.5, 0.89, **half, **unpaired))
        assert "loses 1.0 ± 4.0 points of accuracy" in headline(found)[0]
        assert "half of the 95 % interval of one accuracy (binomial)" in noise_line(found)


def test_an_accuracy_that_is_no_share_has_no_binomial_noise() -> None:
    for score in (85.0, -0.1, float("nan"), None):
        assert score_noise(metrics(0.9), {"accuracy": score}, "accuracy") is None
    assert score_noise(metrics(0.9), {"accuracy": 0.9, "half_width": {"accuracy": float("nan")}}, "accuracy") is None


def test_one_example_is_one() -> None:
    found = metrics(1.0, row(0.5, 1.0, paired={"accuracy": 0.9}), examples=1)
    assert " on 1 test example (post hoc, magnitude). 1 example is too few to tell" in headline(found)[0]
    assert "over 1 test example." in noise_line(found)
    found["dense"]["half_width"] = {"accuracy": 0.8}
    assert interval_lines(found) == ["± in the table: half of the 95 % interval over 1 test example"]


def test_the_line_of_intervals_where_the_first_score_has_none() -> None:
    found = metrics(1.0, **RMSE, split="test")
    found["dense"] |= {"nll": 1.0, "half_width": {"nll": 0.25}}
    over = "half of the 95 % interval over 10,000 test examples"
    assert interval_lines(found) == [f"± of the dense network: {over}; dense: NLL 1.0000 ± 0.2500"]


def test_a_network_that_is_worse_than_the_mean_of_the_targets_is_no_network() -> None:
    said = headline(metrics(5.2, row(0.5, 5.3), mean_of_targets={"rmse": 1.024, "paired": 0.3}, **RMSE))
    assert said[0] == (
        "The dense network is worse than predicting the mean of the targets: its RMSE is 5.20, and 1.02 would be that "
        "of the mean."
    )
    assert said[1].startswith("The chains have"), "of what pruning costs nothing is said"
    for better in (0.9, 1.3):  # within noise it may be either
        assert "worse" not in headline(metrics(better, mean_of_targets={"rmse": 1.024, "paired": 0.3}, **RMSE))[0]
    unknown = metrics(None, mean_of_targets={"rmse": 1.024, "paired": None}, **RMSE)
    assert headline(unknown)[0] == "The RMSE of this network is not a number."


def test_without_a_number_of_examples_there_is_no_noise() -> None:
    unknown = metrics(0.9, row(0.9, 0.893), row(0.95, 0.88), examples=None)
    assert headline(unknown)[0].startswith("At 90 % sparsity this network loses 0.7 points of accuracy")
    assert "no larger than 1 point; the noise" in noise_line(unknown)
    assert "one accuracy (binomial) over 10,000 test examples." in noise_line(metrics(0.9, row(0.9, 0.9)))


def test_the_line_under_the_table_says_what_the_headline_says() -> None:
    """Of the network that loses least it is no use to say that it loses little."""
    starved = row(0.9, 0.457, starved=["fc.weight"])
    found = metrics(0.457, row(0.7, 0.641), starved, **RMSE)
    assert headline(found)[0].startswith(
        "Every pruned network that is not starved loses more than 5 %; the best of them"
    )
    assert noise_line(found) == (
        "No pruned network that is not starved has a loss as small as 5 %, so the headline is about the one that loses "
        "least; the noise of its score is not known."
    )
    few = noise_line(metrics(0.9, row(0.5, 0.88)))
    assert "No pruned network has a loss as small as that, so the headline is about the one that loses least;" in few
    assert noise_line(metrics(0.9)) == noise_line(metrics(None, row(0.5, 0.9))) == "", "there is nothing to explain"


def test_the_change_of_the_nll_stands_beside_the_score_that_chose() -> None:
    dense = {"accuracy": 0.9, "rmse": 27_140.0, "nll": 11.72}
    found = {**metrics(0, row(0.5, 27_601.0, nll=12.08), **RMSE), "dense": dense}
    assert headline(found)[0] == (
        "At 50 % sparsity this network has an RMSE 1.7 % above the dense 27,140 (NLL 0.36 nats higher) on 10,000 test "
        "examples (post hoc, magnitude)."
    )
    found = {**metrics(0, row(0.5, 0.899, nll=11.67)), "dense": dense}
    assert "loses 0.1 ± 0.6 points of accuracy (NLL 0.05 nats lower), from 90.0 % on" in headline(found)[0]
    assert "(NLL" not in headline({**found, "scores": {"accuracy": "accuracy"}})[0]
    assert "(NLL" not in headline(metrics(0.3, row(0.5, 0.3), **NLL))[0]


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (metrics(0.9), "This network has an accuracy of 90.0 ± 0.6 %; nothing was pruned."),
        (metrics(0.9, row(0.0, 0.9)), "This network has an accuracy of 90.0 ± 0.6 %; nothing was pruned."),
        (metrics(0.9, examples=None), "This network has an accuracy of 90.0 %; nothing was pruned."),
        (
            metrics(0.9, row(0.5, None)),
            "This network has an accuracy of 90.0 ± 0.6 %; no pruned one can be compared with it.",
        ),
        (metrics(None, row(0.5, 0.9)), "The accuracy of this network is not a number."),
        (
            metrics(0.0, row(0.5, 0.9), **RMSE),
            "This network has an RMSE of 0.00; no pruned one can be compared with it.",
        ),
    ],
)
def test_what_cannot_be_compared_is_not(found: dict[str, Any], sentence: str) -> None:
    assert headline(found)[0] == sentence


@pytest.mark.parametrize(
    ("rhat", "sentence"),
    [
        (1.0044, "have converged in function space (R-hat up to 1.004)"),
        (1.0136, "have not converged in function space (R-hat up to 1.014)"),
        (3.14, "have not converged in function space (R-hat up to 3.1)"),
        (None, "is not known: there is no R-hat"),
    ],
)
def test_the_largest_r_hat_judges(rhat: float | None, sentence: str) -> None:
    assert sentence in headline(metrics(0.9, rhat=rhat))[1]
    larger = metrics(0.9, rhat=1.0)
    larger["diagnostics"]["mean"] = {"rhat_max": rhat if rhat else np.nan}
    assert ("up to 1.000" if rhat is None else sentence) in headline(larger)[1]


def test_departures_are_counted() -> None:
    said = {n: headline(metrics(0.9, departures=n))[2] for n in (0, 1, 2, 9)}
    assert said == {
        0: "Nothing that the run knows of departs from the posterior.",
        1: "One thing departs from the posterior.",
        2: "Two things depart from the posterior.",
        9: "9 things depart from the posterior.",
    }
    assert len(headline(metrics(0.9, departures=None))) == 2


def test_the_best_rows_of_each_sparsity() -> None:
    rows = [row(0.8, 0.9), row(0.8, 0.896), row(0.8, 0.89), row(0.9, 0.8), row(0.9, 0.5), row(0.95, 0.7)]
    filters = row(0.7, 0.9, target=0.8)  # whole filters do not add up to the target
    assert best_rows(metrics(0.9, *rows, filters)) == {0, 1, 3, 6}
    assert best_rows(metrics(0.9, *rows[:3], **RMSE)) == set(), "the noise of an error is not known"
    known = [{**each, "half_width": {"rmse": 0.007}} for each in rows[:3]]
    assert best_rows(metrics(0.9, *known, **RMSE)) == {1, 2}
    assert best_rows(metrics(0.9, *rows[:3], examples=None)) == set()
    starved = row(0.8, 0.9, starved=["fc.weight"])
    assert best_rows(metrics(0.9, starved, row(0.8, 0.8), row(0.8, 0.797))) == {1, 2}
    assert best_rows(metrics(0.9, row(0.8, None), row(0.8, 0.5))) == set()
