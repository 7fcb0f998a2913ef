"""The main job end to end, on 500 images: what a run leaves, resume after a kill, and bad input in one line."""

import json
import math
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import xarray as xr
from lives import start_resume
from small_run import assert_same_run, new_run, small

from sgmcmc_prune.chains.loop import check_heat
from sgmcmc_prune.data import fashion_mnist
from sgmcmc_prune.errors import Interrupted, RunError
from sgmcmc_prune.pruning import masks
from sgmcmc_prune.pruning.masked import masked_network
from sgmcmc_prune.run import stages
from sgmcmc_prune.run.config import RunConfig
from sgmcmc_prune.run.directory import load_averages, load_config
from sgmcmc_prune.run.main import resume, run
from sgmcmc_prune.run.presets import PRESETS
from sgmcmc_prune.run.run import Run
from sgmcmc_prune.run.stages import departures
from sgmcmc_prune.run.tables import diagnostics_lines
from sgmcmc_prune.settings import from_json, to_json
from sgmcmc_prune.store.files import locked, read_json
from sgmcmc_prune.store.places import RunPlaces
from sgmcmc_prune.store.weights import WeightStore


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One finished run, shared by the tests that only read."""
    out = tmp_path_factory.mktemp("run") / "finished"
    run(small(), out, progress=False)
    return out


def test_metrics_have_every_row_that_was_asked_for(finished: Path) -> None:
    metrics = json.loads((finished / "metrics.json").read_text())
    assert set(metrics) >= {"dense", "diagnostics", "pruned"}
    keys = {"criterion", "when", "decision", "sparsity", "accuracy", "nll", "brier", "ece", "members"}
    assert all(keys <= set(row) for row in metrics["pruned"])
    post_hoc = [r for r in metrics["pruned"] if r["when"] == "post_hoc"]
    in_chain = [r for r in metrics["pruned"] if r["when"] == "in_chain"]
    assert {r["decision"] for r in post_hoc} == {"target", "median", "fdr"}
    assert [(r["criterion"], r["target"]) for r in in_chain] == [
        (c, t) for c in ("inclusion_probability", "magnitude", "random") for t in (0.5, 0.8)
    ]
    assert all(r["sparsity"] == pytest.approx(r["target"], abs=2e-4) for r in in_chain)
    assert metrics["dense"]["members"] == 2 * 2 * 4
    assert metrics["dense"]["accuracy"] > 0.5


def test_masked_weights_are_exactly_zero_in_every_draw_of_a_fork(finished: Path) -> None:
    fork = finished / "forks" / "inclusion_probability"
    previous = None
    for k, target in enumerate((0.5, 0.8)):
        mask = masks.load(fork / "masks" / f"chain0-{target:g}.safetensors")
        for draw in (2 * k, 2 * k + 1):
            weights = WeightStore(fork / "draws").load(0, draw)
            assert all(bool((weights[name][~m] == 0).all()) for name, m in mask.items())
        assert previous is None or not any(bool((m & ~previous[name]).any()) for name, m in mask.items())
        previous = mask


def test_further_cycles_at_a_target_keep_its_mask_and_add_draws(tmp_path: Path) -> None:
    changes = {"prune.cycles": 2, "prune.in_chain": ("magnitude",), "chains": 1, "keep_weight_draws": True}
    metrics = run(small(**changes), tmp_path / "out", progress=False)
    fork, draws = tmp_path / "out" / "forks" / "magnitude", 2 * 2
    assert [row["members"] for row in metrics["pruned"] if row["when"] == "in_chain"] == [draws, draws]
    for k, target in enumerate((0.5, 0.8)):
        mask = masks.load(fork / "masks" / f"chain0-{target:g}.safetensors")
        assert masks.sparsity(mask) == pytest.approx(target, abs=2e-4)
        for draw in range(k * draws, (k + 1) * draws):
            weights = WeightStore(fork / "draws").load(0, draw)
            assert all(torch.equal(weights[name] != 0, kept) for name, kept in mask.items())


@pytest.mark.parametrize("change", [{"prune.explore": 0.0}, {"prune.growth": 1.0}, {"prune.explore": 0.1}])
def test_a_target_is_reached_however_short_or_long_the_growth(change: dict[str, object], tmp_path: Path) -> None:
    metrics = run(small(**{"prune.in_chain": ("magnitude",), "chains": 1, **change}), tmp_path / "out", progress=False)
    reached = [row["sparsity"] for row in metrics["pruned"] if row["when"] == "in_chain"]
    assert reached == pytest.approx([0.5, 0.8], abs=2e-4)


def test_inclusion_probabilities_of_one_long_cycle_have_a_standard_error(tmp_path: Path) -> None:
    long = {"schedule.cycles": 1, "schedule.sample": 8.0, "schedule.draws": 64, "prune.in_chain": (), "chains": 1}
    metrics = run(small(**long), tmp_path / "out", progress=False)
    found = metrics["diagnostics"]["inclusion"]
    assert found["batches"] == 8
    assert 0 < found["standard_error"]["linear.weight"] < 0.5
    assert 0 <= found["undecided"]["linear.weight"] < 1
    assert any("median standard error from 8 batches" in line for line in diagnostics_lines(metrics))
    few = {**metrics["diagnostics"], "inclusion": {**found, "batches": 3}}
    assert any("no standard error" in line for line in diagnostics_lines({**metrics, "diagnostics": few}))


def test_a_run_that_fails_in_whatever_way_says_so(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        run(small(**{"model.name": "test_run:broken_network", "chains": 1}), tmp_path / "out", progress=False)
    recorded = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (recorded["status"], recorded["error"]) == ("failed", "a user's mistake")


def test_random_control_has_the_per_layer_sparsity_of_the_first_criterion(finished: Path) -> None:
    for target in (0.5, 0.8):
        paths = [finished / "forks" / c / "masks" / f"chain1-{target:g}.safetensors" for c in ("random", "magnitude")]
        first = finished / "forks" / "inclusion_probability" / "masks" / f"chain1-{target:g}.safetensors"
        control, copied = masks.load(paths[0]), masks.load(first)
        assert {n: int(kept.sum()) for n, kept in control.items()} == {n: int(k.sum()) for n, k in copied.items()}


def test_store_opens_lazily_and_is_complete(finished: Path) -> None:
    tree = xr.open_datatree(finished / "posterior.zarr", engine="zarr")
    assert tree["posterior"]["logits"].dims == ("chain", "draw", "probe", "class")
    assert tuple(tree["posterior_predictive"]["class"].values) == fashion_mnist.CLASSES
    assert tree["log_likelihood"]["probe"].values.tolist() == Run(small()).probes.index.tolist()
    assert bool((tree["sample_stats"]["cycle"] >= 1).all())
    assert not bool(tree["posterior"]["logits"].isnull().any())
    rates = tree["posterior"]["inclusion_rate"].values
    assert (rates == rates[:, :1]).all(), "hyperparameters must be frozen while draws are collected"
    assert (tree["sample_stats"]["step_size"].values == small().sampler.lr_min).all()


def test_config_json_reproduces_the_run(finished: Path, tmp_path: Path) -> None:
    config = load_config(finished)
    assert config == small()
    run(config, tmp_path / "again", progress=False)
    assert_same_run(finished, tmp_path / "again")


@pytest.mark.parametrize("execution", ["loop", "processes"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_resumes_to_the_same_bits(
    finished: Path, tmp_path: Path, number: signal.Signals, execution: str
) -> None:
    out = new_run(small(execution=execution), tmp_path / "killed")
    life = start_resume(out)
    while not list(out.glob("checkpoints/*.safetensors")) and life.alive:
        time.sleep(0.01)
    life.send(number)
    code, output = life.end()
    assert not (out / "metrics.json").exists(), "the run ended before it was killed"
    if number == signal.SIGTERM:
        assert (code, f"Go on with: sgmcmc-prune resume {out}" in output) == (143, True)
    resume(out, progress=False)
    assert_same_run(finished, out)


def test_a_worker_that_fails_ends_the_run_with_its_reason(tmp_path: Path) -> None:
    steps = {"sampler.lr": 1e30, "sampler.lr_explore": 1e20, "sampler.lr_min": 1e20, "execution": "processes"}
    config = small(**steps, **{"prior.spike_variance": 1e29, "prior.slab_variance": 1e30})
    with pytest.raises(RunError, match=r"chain [01] diverged at step \d+.*Lower the step size"):
        run(config, tmp_path / "out", progress=False)


def test_a_run_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(to_json(small())))
    with locked(tmp_path / ".lock"), pytest.raises(ValueError, match="is in use: another process"):
        resume(tmp_path, progress=False)


def test_a_diverging_chain_stops_and_keeps_what_it_had(tmp_path: Path) -> None:
    steps = {"sampler.lr": 1e30, "sampler.lr_explore": 1e20, "sampler.lr_min": 1e20}
    config = small(**steps, **{"prior.spike_variance": 1e29, "prior.slab_variance": 1e30})
    with pytest.raises(RunError, match=r"chain 0 diverged at step \d+.*Lower the step size"):
        run(config, tmp_path / "out", progress=False)
    assert json.loads((tmp_path / "out" / "run.json").read_text())["status"] == "failed"
    xr.open_datatree(tmp_path / "out" / "posterior.zarr", engine="zarr")


def test_configuration_survives_json() -> None:
    for make in PRESETS.values():
        assert from_json(json.loads(json.dumps(to_json(make()))), RunConfig) == make()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sampler.temperature": -1.0}, "temperature is -1.0"),
        ({"prior.spike_variance": 1.0}, "0 < spike < slab"),
        ({"prior.spike_variance": 1e-9}, "too narrow for the step size"),
        ({"data.validation": 7000}, "validation size is 7000; choose 0 to 6999"),
        ({"data.name": "mnist"}, "fashion-mnist"),
        ({"model.name": "alexnet"}, "alexnet"),
        ({"schedule.draws": 0}, "draws"),
        ({"prune.targets": (0.9, 0.8)}, "increasing"),
        ({"prior.mode": "em"}, "em_responsibility"),
        ({"device": "cuda:99"}, "CUDA"),
        ({"device": "foo"}, "choose cpu, cuda"),
        ({"schedule.cycles": 0, "prune.post_hoc": ("magnitude",)}, "schedule.cycles is 0"),
        ({"prune.targets": (0.5, 1.0)}, r"prune\.targets"),
        ({"prune.targets": (0.8, 0.5)}, "increasing"),
        ({"prune.post_hoc": ("random", "magnitude")}, "post_hoc starts with 'random'"),
        ({"schedule.cycles": 1, "schedule.draws": 1, "prune.post_hoc": ("signal_to_noise",)}, "at least two draws"),
    ],
)
def test_bad_settings_are_refused_in_one_line_before_a_directory_is_made(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        run(small(**change), tmp_path / "out", progress=False)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_existing_directories_are_safe(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("keep me")
    with pytest.raises(ValueError, match="exists and is not empty"):
        run(small(), tmp_path, progress=False)
    with pytest.raises(ValueError, match="will not delete"):
        run(small(), tmp_path, overwrite=True, progress=False)
    assert (tmp_path / "precious.txt").read_text() == "keep me"


def test_unknown_field_in_a_configuration_is_named() -> None:
    with pytest.raises(ValueError, match=r"config\.sampler has no field learning_rate"):
        from_json({"sampler": {"learning_rate": 0.1}}, RunConfig)
    with pytest.raises(ValueError, match=r"config\.chains is 'two'"):
        from_json({"chains": "two"}, RunConfig)


def test_em_mode_yields_responsibilities_under_their_own_name(tmp_path: Path) -> None:
    config = small(
        **{
            "prior.mode": "em",
            "prune.post_hoc": ("em_responsibility",),
            "prune.in_chain": ("em_responsibility",),
            "chains": 1,
            "keep_weight_draws": False,
        }
    )
    metrics = run(config, tmp_path / "em", progress=False)
    assert {r["criterion"] for r in metrics["pruned"]} == {"em_responsibility"}
    assert not list((tmp_path / "em").rglob("draws/*"))
    assert resume(tmp_path / "em", progress=False)["dense"] == metrics["dense"]
    assert any("not the mixture posterior" in line for line in load_departures(tmp_path / "em"))


def load_departures(out: Path) -> list[str]:
    """The departures a run recorded."""
    recorded: list[str] = json.loads((out / "run.json").read_text())["departures"]
    return recorded


def test_bfloat16_is_recorded_as_a_departure() -> None:
    for precision in ("float32", "bfloat16"):
        job = Run(small(precision=precision))
        model = job.model(0)
        found = departures(job, model, job.prior(model, 0))
        assert any(line.startswith("precision bfloat16") for line in found) == (precision == "bfloat16")


def test_gaussian_prior_and_sgld_run(tmp_path: Path) -> None:
    config = small(
        **{
            "prior.family": "gaussian",
            "sampler.name": "sgld",
            "prune.post_hoc": ("magnitude",),
            "prune.in_chain": ("magnitude",),
            "chains": 1,
        }
    )
    metrics = run(config, tmp_path / "g", progress=False)
    unread = json.loads((tmp_path / "g" / "run.json").read_text())["unread"]
    assert unread[0] == "prior.spike_variance is 0.001, and prior.family gaussian does not read it"
    assert metrics["diagnostics"]["kinetic_temperature"] is None or math.isnan(
        metrics["diagnostics"]["kinetic_temperature"]
    )
    assert metrics["dense"]["accuracy"] > 0.5


def test_the_averages_of_a_finished_chain_hold_its_inclusion(finished: Path) -> None:
    state = load_averages(RunPlaces(finished), 0)
    assert set(state["inclusion"]) == set(state["moments"]) == {"linear.weight"}


class Broken(torch.nn.Linear):
    """It fails in the middle of a run: at the first whole minibatch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of a few examples."""
        if len(x) > 16:
            raise ZeroDivisionError("a user's mistake")
        return super().forward(x.flatten(1))


def broken_network(input_shape: tuple[int, ...], num_classes: int) -> torch.nn.Module:
    """A user's own network that cannot be evaluated."""
    return Broken(math.prod(input_shape), num_classes)


def batchnorm_network(input_shape: tuple[int, ...], num_classes: int) -> torch.nn.Module:
    """A user's own network, with BatchNorm, for the configuration's dotted path."""
    size = math.prod(input_shape)
    return torch.nn.Sequential(
        torch.nn.Flatten(),
        torch.nn.Linear(size, 16),
        torch.nn.BatchNorm1d(16),
        torch.nn.ReLU(),
        torch.nn.Linear(16, num_classes),
    )


def test_batchnorm_is_recorded_as_a_departure_and_reestimated_after_a_mask(tmp_path: Path) -> None:
    config = small(
        **{"model.name": "test_run:batchnorm_network", "prune.in_chain": (), "prune.targets": (0.5,), "chains": 1}
    )
    metrics = run(config, tmp_path / "bn", progress=False)
    assert any("batch normalisation" in line for line in load_departures(tmp_path / "bn"))
    kept = next(r for r in metrics["pruned"] if r["criterion"] == "inclusion_probability" and r["target"] == 0.5)
    assert kept["accuracy"] > metrics["dense"]["accuracy"] - 0.05


def test_a_finished_run_whose_draws_are_gone_is_not_evaluated_otherwise(tmp_path: Path) -> None:
    out = tmp_path / "out"
    short = {"schedule.burn_in": 1.0, "schedule.draws": 2, "prune.targets": (0.5,), "prune.in_chain": (), "chains": 1}
    run(small(**short, keep_weight_draws=False), out, progress=False)
    assert not (out / "draws").exists()
    assert resume(out, progress=False) == read_json(out / "metrics.json")
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**config, "evaluate": "validation"}))
    with pytest.raises(ValueError, match="cannot be evaluated with another evaluate: its draws are gone"):
        resume(out, progress=False)


def test_chains_that_were_not_taken_together_are_not_set_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = new_run(small(**{"prune.in_chain": (), "checkpoint_seconds": 0.01}), tmp_path / "out")
    taken = stages.take_chain

    def first_alone(job: Run, index: int, *rest: Any) -> None:
        if index:
            raise Interrupted
        taken(job, index, *rest)

    with monkeypatch.context() as patch:
        patch.setattr("sgmcmc_prune.run.main.take_chain", first_alone)
        with pytest.raises(Interrupted):
            resume(out, progress=False)
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**config, "execution": "batched"}))
    with pytest.raises(ValueError, match=r"the chains stand at steps \d+, 0, .* go on with execution 'loop'"):
        resume(out, progress=False)
    assert list(out.glob("checkpoints/chain0.safetensors*"))


def test_no_handler_of_errors_swallows_an_interrupt() -> None:
    assert not issubclass(Interrupted, Exception)
    assert (Interrupted(signal.SIGINT).exit_code, Interrupted().exit_code) == (130, 143)


def test_stored_probes_are_predicted_as_draws_are_evaluated(tmp_path: Path) -> None:
    """BatchNorm's statistics are estimated anew for both: the store's likelihood is that of the evaluated network."""
    changes = {"model.name": "test_run:batchnorm_network", "prune.in_chain": (), "prune.targets": (0.5,), "chains": 1}
    config = small(**changes, **{"keep_weight_draws": True, "schedule.burn_in": 1.0, "schedule.draws": 1})
    out = tmp_path / "out"
    run(config, out, progress=False)
    job = Run(config)
    tree = xr.open_datatree(out / "posterior.zarr", engine="zarr")
    inputs = torch.from_numpy(tree["constant_data"]["image"].values)
    labels = torch.from_numpy(tree["observed_data"]["y"].values)
    weights = WeightStore(out / "draws").load(0, 0)
    network = masked_network(job.model(0), weights, {}, job.statistics_batches()).eval()
    found = torch.from_numpy(tree["log_likelihood"]["y"].values[0, 0])
    expected = -torch.nn.functional.cross_entropy(network(inputs), labels, reduction="none").detach()
    torch.testing.assert_close(found.float(), expected, rtol=1e-4, atol=1e-4)


def test_a_run_builds_one_chain_to_check_it_and_then_each_that_steps_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[tuple[int, str | None]] = []
    original = Run.chain

    def counted(self: Run, index: int, schedule: Any, criterion: str | None = None, *rest: Any, **named: Any) -> Any:
        built.append((index, criterion))
        return original(self, index, schedule, criterion, *rest, **named)

    monkeypatch.setattr(Run, "chain", counted)
    run(small(**{"prune.in_chain": ("magnitude",), "chains": 3}), tmp_path / "out", progress=False)
    assert sorted(built[1:], key=str) == sorted([(c, s) for c in range(3) for s in (None, "magnitude")], key=str)
    assert built[0] == (0, None)


def test_a_runaway_chain_ends_though_its_loss_is_a_number() -> None:
    job = Run(small())
    chain = job.chain(0, job.schedule(None))
    for kinetic in (340.0, math.nan):  # a hot start, and a sampler without momentum
        check_heat(chain, kinetic)
    with pytest.raises(RunError, match=r"^chain 0 diverged at step 0: its kinetic temperature is 4e\+16\. Lower"):
        check_heat(chain, 4e16)
