"""The one-shot track: one start for all methods of a seed, data on top of the budget, and shuffled controls."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sgmcmc_prune import cli
from sgmcmc_prune.compare.cell import load_problem
from sgmcmc_prune.compare.comparison import compare
from sgmcmc_prune.compare.config import Comparison
from sgmcmc_prune.compare.method import Candidate, Problem
from sgmcmc_prune.compare.methods import METHODS, TRACKS, find
from sgmcmc_prune.compare.table import read_csv
from sgmcmc_prune.criteria.lamp import lamp
from sgmcmc_prune.machine.progress import listening
from sgmcmc_prune.models.state import network_state
from sgmcmc_prune.priors.groups import GroupMap
from sgmcmc_prune.pruning import masks
from sgmcmc_prune.run.config import DataConfig, ModelConfig
from sgmcmc_prune.store.given_weights import load_given_weights

QUICK = ["sgd-lamp-one-shot", "sgd-magnitude-moved", "sgd-conditional-kfac-staged", "obc"]
QUICK += ["draws-expected-log-odds-one-shot", "draws-conditional-ggn"]
SLOW = sorted(TRACKS["one-shot"].keys() - {*QUICK})


def coarse(input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    return nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(49, 6), nn.Tanh(), nn.Linear(6, num_classes))


def tiny() -> Comparison:
    return Comparison(
        track="one-shot",
        sparsities=(0.5, 0.8),
        seeds=(0,),
        epochs=8,
        members=3,
        data=DataConfig(validation=6500, batch_size=25),
        model=ModelConfig(name=f"{__name__}:coarse"),
    )


@pytest.fixture(scope="module")
def problem(tmp_path_factory: pytest.TempPathFactory) -> Problem:
    found, _ = load_problem(tiny(), tmp_path_factory.mktemp("one-shot"), 0)
    inputs, labels = found.data.validation
    return replace(found, data=replace(found.data, validation=(inputs[:300], labels[:300])))


def candidates(problem: Problem, name: str, folder: Path) -> list[Candidate]:
    assert find(name).applies(problem) is None
    return list(find(name).fit(problem, folder))


def check(problem: Problem, name: str, found: list[Candidate]) -> None:
    """Every candidate has the budget's training, its data on top, and a control with the same layers."""
    assert [c.target for c in found] == list(problem.sparsities)
    for candidate in found:
        assert (
            candidate.cost.gradient_evaluations == problem.steps * problem.batch_size + candidate.calibration_examples
        )
        assert (candidate.calibration_examples > 0) == ("conditional" in name or "moved" in name or name == "obc")
        assert candidate.members == (3 if name.startswith("draws") else 1)
        (mask,), control = candidate.masks, candidate.shuffled
        assert masks.sparsity(mask) == pytest.approx(candidate.target, abs=2e-3)
        assert control is not None
        for layer, kept in control.masks[0].items():
            assert int(kept.sum()) == int(mask[layer].sum())
            assert bool(kept.all()) or not torch.equal(kept, mask[layer])
        probabilities = candidate.predict(problem.data.validation[0])
        torch.testing.assert_close(probabilities.sum(1), torch.ones_like(probabilities[:, 0]))


@pytest.mark.parametrize("name", QUICK)
def test_candidates_keep_the_contract(problem: Problem, name: str, tmp_path: Path) -> None:
    check(problem, name, candidates(problem, name, tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_candidates_of_the_other_methods_keep_it_too(problem: Problem, name: str, tmp_path: Path) -> None:
    check(problem, name, candidates(problem, name, tmp_path))


def test_methods_of_a_seed_start_from_one_network(problem: Problem, tmp_path: Path) -> None:
    """The second does not train; where nothing is moved, what is kept has the same weights."""
    first = candidates(problem, "sgd-magnitude-one-shot", tmp_path)[0]
    again = candidates(problem, "sgd-lamp-one-shot", tmp_path)[0]
    assert first.cost.seconds == again.cost.seconds
    one, other = (network_state(c.single.__self__.model) for c in (first, again))  # type: ignore[attr-defined]
    both = first.masks[0]["2.weight"] & again.masks[0]["2.weight"]
    assert torch.equal(one["2.weight"][both], other["2.weight"][both])


def test_a_network_of_other_layers_gets_a_row_with_the_reason(problem: Problem) -> None:
    config = replace(problem.config, model=replace(problem.config.model, name="vit"))
    reason = find("sgd-conditional-ggn").applies(replace(problem, config=config))
    assert reason is not None
    assert "belongs to no layer" in reason
    assert find("sgd-magnitude-one-shot").applies(replace(problem, config=config)) is None


def test_both_tracks_are_listed_and_have_names_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["methods"])
    listed = capsys.readouterr().out
    assert all(name in listed for track in TRACKS.values() for name in track)
    assert not METHODS.keys() & TRACKS["one-shot"].keys()


def test_a_table_has_the_split_the_data_and_the_control(tmp_path: Path) -> None:
    compare(replace(tiny(), methods=("sgd-conditional-kfac",)), tmp_path / "out", progress=False)
    for row in read_csv(tmp_path / "out" / "comparison.csv"):
        assert (row["split"], row["data"]) == ("validation", "fashion-mnist-subset (not the official files)")
        assert row["calibration_examples"] == 500
        assert row["gradient_evaluations"] == 8 * 500 + 500
        assert 0 < row["shuffled_accuracy"] < 1


@pytest.mark.parametrize("form", ["start.safetensors", "start.pt", "checkpoint.pth.tar"])
def test_every_seed_can_start_from_a_network_that_was_trained_elsewhere(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(7)
    state, path = coarse((1, 28, 28), 10).state_dict(), tmp_path / form
    if form.endswith("safetensors"):
        save_file(state, path)
    else:
        wrapped = {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}
        torch.save(wrapped if "tar" in form else state, path)
    methods = ("sgd-magnitude-one-shot", "sgd-conditional-kfac", "draws-conditional-ggn")
    comparison = replace(tiny(), start=path, epochs=Comparison.epochs, seeds=(0, 1), methods=methods)
    rows = compare(comparison, tmp_path / "out")
    said = capsys.readouterr().out.splitlines()[0]
    images, labels = load_problem(comparison, tmp_path / "again", 0)[0].data.validation
    own = coarse((1, 28, 28), 10)
    own.load_state_dict(state)
    assert f"as given: accuracy {float((own(images).argmax(1) == labels).float().mean()):.4f}, NLL" in said
    given = [row for row in rows if row["method"] == "sgd-magnitude-one-shot" and row["kind"] == "single"]
    assert {row["gradient_evaluations"] for row in given} == {0}
    assert {(row["kind"], row["settings"]) for row in rows if not row["reason"] and row["method"] == methods[0]} == {
        ("single", "")
    }, "one network, once, and no settings of a training"
    assert {row["settings"] for row in rows if row["method"] == methods[1]} == {"weight_decay=0.0005"}
    assert not (tmp_path / "out" / "shared").exists()  # nothing was trained
    problem, _ = load_problem(comparison, tmp_path, 1)
    (first, *_) = find("sgd-magnitude-one-shot").fit(problem, tmp_path)
    cut = torch.cat([state[name].flatten()[~mask.flatten()].abs() for name, mask in first.masks[0].items()])
    kept = torch.cat([state[name].flatten()[mask.flatten()].abs() for name, mask in first.masks[0].items()])
    assert len(cut) > 100
    assert float(cut.max()) <= float(kept.min())
    assert any("a network was given" in row["reason"] for row in rows)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"no weights",
            r"^[^\n]*cannot be read as a state dict: it is no file of torch.save, or .*Give a state dict as",
        ),
        (b"PK\x03\x04" + bytes(90), r"it is cut short or damaged \(94 bytes\)\. Give"),
        (nn.Linear(2, 2), "it holds objects that are no tensors, such as a whole network. Give"),
        ({"epoch": 3}, "holds no state dict"),
        ({"2.weight": torch.zeros(6, 49)}, "does not fit the network"),
        (b"", "cannot be read as a state dict: it is empty. Give"),
        (
            coarse((1, 28, 28), 10).double().state_dict() | {"2.bias": torch.full((6,), 1e300, dtype=torch.float64)},
            "not finite",
        ),
        (coarse((1, 28, 28), 10).state_dict() | {"2.bias": torch.ones(6, dtype=torch.bool)}, "has type bool"),
        (coarse((1, 28, 28), 10).state_dict() | {"2.bias": torch.ones(6).to_sparse()}, "no dense tensor"),
        (None, "is not a file"),
    ],
)
def test_a_start_that_is_none_is_refused_before_any_cell(content: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "start.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(ValueError, match=message):
        compare(replace(tiny(), start=path, epochs=Comparison.epochs), tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_a_folder_belongs_to_the_content_of_its_start(tmp_path: Path) -> None:
    path, other = tmp_path / "start.pt", tmp_path / "moved.pt"
    torch.save(coarse((1, 28, 28), 10).state_dict(), path)
    other.write_bytes(path.read_bytes())
    comparison = replace(tiny(), start=path, epochs=Comparison.epochs, methods=("sgd-magnitude-one-shot",))
    compare(comparison, tmp_path / "out", progress=False)
    compare(replace(comparison, start=other), tmp_path / "out", progress=False)
    torch.save(coarse((1, 28, 28), 10).state_dict(), path)
    with pytest.raises(ValueError, match="other weights"):
        compare(comparison, tmp_path / "out", progress=False)


def test_weights_are_known_by_the_names_of_the_network_whatever_wraps_them(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = nn.Linear(3, 3)
            self.again = self.module

    for prefix in ("", "module.", "_orig_mod.module.", "module._orig_mod."):
        theirs, ours = Tied(), Tied()
        torch.save({f"{prefix}{name}": value for name, value in theirs.state_dict().items()}, tmp_path / "w.pt")
        load_given_weights(ours, tmp_path / "w.pt")
        assert torch.equal(ours.module.weight, theirs.module.weight)


def test_a_start_is_for_methods_that_do_not_train(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="track one-shot"):
        replace(tiny(), track="trained", start=tmp_path)
    given = replace(tiny(), epochs=Comparison.epochs, start=tmp_path)
    with pytest.raises(ValueError, match="no training to choose for"):
        replace(given, search=2)
    for epochs in (2, 12):
        with pytest.raises(ValueError, match=f"epochs is {epochs}, and with start nothing is trained; leave it out"):
            replace(given, epochs=epochs)


def test_every_stage_is_told(problem: Problem, tmp_path: Path) -> None:
    told: list[str] = []
    with listening(told.append):
        candidates(problem, "sgd-conditional-kfac", tmp_path)
    assert told[-4:] == [
        f"{what}stage {k} of 2, to {s}" for what in ("", "shuffled, ") for k, s in ((1, "50.0%"), (2, "80.0%"))
    ]


def test_lamp_is_the_share_of_what_is_at_least_as_large() -> None:
    weights = {"w": torch.tensor([[3.0, -1.0], [2.0, 0.0]])}
    found = lamp(weights, {"w": GroupMap("weight", (2, 2))})["w"]
    torch.testing.assert_close(found, torch.tensor([1.0, 1 / 14, 4 / 13, 0.0], dtype=torch.float64))
