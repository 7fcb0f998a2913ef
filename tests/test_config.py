"""Every setting of every part of a configuration is what its annotation says, or is refused with its name."""

import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_run import small

from sgmcmc_prune import choices
from sgmcmc_prune.priors.em_settings import EMSettings
from sgmcmc_prune.run.checks import prior_class
from sgmcmc_prune.run.config import NetworkChoice, PriorConfig, RunConfig
from sgmcmc_prune.run.main import run
from sgmcmc_prune.run.presets import PRESETS
from sgmcmc_prune.run.run import Run
from sgmcmc_prune.run.unread import unread_settings
from sgmcmc_prune.settings import from_json, replace, to_json

WRONG: dict[type, tuple[Any, ...]] = {
    bool: (2, None, "yes", 1.0),
    int: (1.5, True, None, "3", math.nan),
    float: (math.nan, math.inf, -math.inf, True, None, "0.1"),
    str: (None, 1, 1.5),
    tuple: ("magnitude", None, [0.5], (math.nan,), (None,)),
}


def settings(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting by its dotted name."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from settings(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, value


@pytest.mark.parametrize(("name", "value"), [pair for pair in settings(RunConfig()) if pair[1] is not None])
def test_a_setting_of_another_type_is_refused_by_name(name: str, value: Any) -> None:
    assert replace(RunConfig(), **{name: value}) == RunConfig()
    for wrong in WRONG[type(value)]:
        with pytest.raises(ValueError, match=rf"^{name} is .*; (it must be|choose among|choose one of)") as caught:
            replace(RunConfig(), **{name: wrong})
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sampler.name", "nonsense"),
        ("sampler.preconditioner", ""),
        ("prune.allocation", "nonsense"),
        ("execution", "nonsense"),
        ("evaluate", "train"),
        ("prior.family", "cauchy"),
        ("em.kind", "nonsense"),
        ("model.normalisation", "none"),
    ],
)
def test_an_unknown_choice_is_refused(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=rf"{name} is '{value}'; choose (among|one of)"):
        replace(RunConfig(), **{name: value})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": -1}, "seed is -1; choose 0 to"),
        ({"seed": 2**48}, "seed is 281474976710656; choose 0 to"),
        ({"chains": 0}, "chains is 0"),
        ({"chains": 2**16}, "chains is 65536"),
        ({"data.workers": 0}, "data.workers is 0"),
        ({"sampler.momentum": -1.0}, "sampler.momentum is -1.0"),
        ({"sampler.momentum": 1.0}, "sampler.momentum is 1.0"),
        ({"schedule.burn_in": -1.0}, "schedule.burn_in is -1.0; it must be >= 0 epochs"),
        ({"prune.relax": -0.5}, "prune.relax is -0.5; it must be >= 0 epochs"),
        ({"checkpoint_seconds": -1.0}, "checkpoint_seconds is -1.0"),
        ({"ranks_per_chain": -1}, "ranks_per_chain is -1"),
        (
            {"prune.in_chain": ("magnitude", "magnitude")},
            "prune.in_chain names a criterion twice: magnitude, magnitude",
        ),
        ({"prune.targets": (0.0, 0.5)}, r"prune.targets are \(0.0, 0.5\)"),
        ({"prune.targets": (0.5, 0.5)}, "give increasing sparsities"),
        ({"prune.targets": (1.0,)}, "give increasing sparsities"),
    ],
)
def test_a_setting_out_of_range_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(RunConfig(), **changes)


def test_whole_numbers_may_stand_for_others_and_optional_settings_are_checked() -> None:
    assert replace(RunConfig(), **{"sampler.lr": 1, "ranks_per_chain": 2, "ood_dir": Path("x")}).sampler.lr == 1
    for changes in ({"ood_dir": "x"}, {"ranks_per_chain": 1.5}, {"sampler.explore_temperature": math.nan}):
        with pytest.raises(ValueError, match="it must be"):
            replace(RunConfig(), **changes)
    with pytest.raises(ValueError, match=r"em.every is '3'; it must be an integer"):
        EMSettings(every="3")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="chain is True"):
        NetworkChoice(chain=True)


@pytest.mark.parametrize("make", PRESETS.values())
def test_presets_survive_json(make: Any) -> None:
    assert from_json(to_json(make()), RunConfig) == make()


@pytest.mark.parametrize(
    ("preset", "changes", "said"),
    [
        ("demo", {"prior.family": "gaussian", "prior.spike_variance": 1e-3}, "prior.spike_variance is 0.001"),
        ("demo", {"prior.family": "gaussian", "prior.degrees_of_freedom": 5.0}, "prior.degrees_of_freedom is 5.0"),
        ("demo", {"prior.family": "laplace", "prior.mode": "em"}, "prior.mode is 'em'"),
        ("demo", {"prior.family": "student_t", "prior.dense_variance": 0.3}, "prior.dense_variance is 0.3"),
        ("demo", {"prior.family": "horseshoe", "prior.inclusion_rate": 0.1}, "prior.inclusion_rate is 0.1"),
        ("demo", {"prior.family": "gaussian", "prior.indicator_every": 5}, "prior.indicator_every is 5"),
        ("demo", {"prior.degrees_of_freedom": 5.0}, "prior.degrees_of_freedom is 5.0"),
        ("demo", {"prior.indicator_every": 5}, "prior.indicator_every is 5"),
        ("demo", {"prior.family": "gaussian", "em.beta_b": 9.0}, "em.beta_b is 9.0"),
        ("demo", {"em.kind": "fixed", "em.every": 7}, "em.every is 7"),
        ("demo", {"em.kind": "soft", "em.decay": 0.9}, "em.decay is 0.9"),
        ("demo", {"em.kind": "fixed", "prior.mode": "em", "em.every": 7}, ""),
        ("demo", {"prior.family": "laplace", "em.beta_a": 3.0}, "em.beta_a is 3.0"),
        ("demo", {"prior.family": "laplace", "em.every": 7, "em.decay": 0.9}, ""),
        ("demo", {"em.learn_variances": "none", "em.variance_ratio": 50.0}, "em.variance_ratio is 50.0"),
        ("demo", {"sampler.temperature": 0.0, "em.every": 7}, "em.every is 7"),
        ("demo", {"em.decay": 0.9, "em.kind": "stochastic"}, ""),
        ("demo", {"sampler.name": "sgld", "sampler.momentum": 0.5}, "sampler.momentum is 0.5"),
        ("demo", {"prior.family": "student_t", "prior.degrees_of_freedom": 5.0}, ""),
        ("demo", {"prior.family": "horseshoe", "prior.indicator_every": 5, "prior.dense_variance": 0.3}, ""),
        ("demo", {"prior.family": "gaussian", "prior.slab_variance": 0.3, "prior.dense_variance": 0.3}, ""),
        ("demo", {"prior.mode": "gibbs", "prior.spike": "laplace", "prior.indicator_every": 5}, ""),
        ("regression", {"prior.family": "gaussian"}, ""),
    ],
)
def test_a_setting_that_nothing_reads_is_named(preset: str, changes: dict[str, Any], said: str) -> None:
    found = unread_settings(Run(replace(PRESETS[preset](), **changes)))
    assert [line.split(",")[0] for line in found] == ([said] if said else [])


def test_a_run_tells_and_records_what_it_does_not_read(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    given = {
        "prior.family": "laplace",
        "prior.spike_variance": 0.3,
        "prune.in_chain": (),
        "prune.post_hoc": ("magnitude",),
    }
    run(small(**given), tmp_path / "out")
    line = "prior.spike_variance is 0.3, and prior.family laplace does not read it"
    assert f"note: {line}\n" in capfd.readouterr().err
    assert json.loads((tmp_path / "out" / "run.json").read_text())["unread"] == [line]


@pytest.mark.parametrize("family", choices.OURS["prior"])
def test_a_prior_reads_settings_that_there_are_and_gets_no_others(family: str) -> None:
    config = replace(RunConfig(), **{"prior.family": family})
    known = {field.name for field in dataclasses.fields(PriorConfig)}
    assert "slab_variance" in prior_class(config).settings
    assert set(prior_class(config).settings) <= known - {"family", "options", "group", "indicator_every"}
