"""A pruned network in one file: the same outputs, the sizes it says, what a run does not have, damaged files."""

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch
from small_run import new_run, small
from torch import nn

from sgmcmc_prune import models
from sgmcmc_prune.bench import latency
from sgmcmc_prune.likelihoods.gaussian import LearnedNoise
from sgmcmc_prune.predictive.metrics import summarise
from sgmcmc_prune.predictive.predict import class_probabilities
from sgmcmc_prune.pruning import masks
from sgmcmc_prune.run.config import NetworkChoice, RunConfig
from sgmcmc_prune.run.decide import asked_post_hoc, decided_post_hoc
from sgmcmc_prune.run.directory import load_averages
from sgmcmc_prune.run.evaluate import held_out_losses
from sgmcmc_prune.run.export import export, inputs_in_words, table
from sgmcmc_prune.run.main import run
from sgmcmc_prune.run.presets import PRESETS
from sgmcmc_prune.run.run import Run
from sgmcmc_prune.settings import replace
from sgmcmc_prune.store.files import read_json
from sgmcmc_prune.store.network import About, load_network, save_network
from sgmcmc_prune.store.program import Program, read_program, why_no_onnx, write_program
from sgmcmc_prune.store.weights import WeightStore, average

ABOUT = About("lenet", None, (1, 28, 28), 10, (0.5,), (0.25,))


def config() -> RunConfig:
    """A run with hidden nodes, which a mask can empty."""
    return small(
        **{
            "model.name": "mlp",
            "prune.targets": (0.5, 0.99),
            "prune.in_chain": ("magnitude",),
            "prune.cycles": 2,
            "keep_weight_draws": True,
        }
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "run"
    run(config(), out, progress=False)
    return out


def test_an_exported_network_predicts_as_the_masked_mean_of_the_last_cycle(finished: Path, tmp_path: Path) -> None:
    result = export(finished, tmp_path / "net.safetensors", NetworkChoice(chain=1), rounds=6)
    network, about = load_network(tmp_path / "net.safetensors")
    fork, data = finished / "forks" / "magnitude", Run(config()).data
    masked = Run(config(), data=data).model(1)
    masked.load_state_dict(average([WeightStore(fork / "draws").load(1, draw) for draw in (6, 7)]))
    masks.apply(masks.load(fork / "masks" / "chain1-0.99.safetensors"), dict(masked.named_parameters()))
    inputs = data.test[0][:200]
    torch.testing.assert_close(class_probabilities(network, inputs), class_probabilities(masked, inputs))
    assert (about.model, about.input_shape, about.num_classes) == ("mlp", (1, 28, 28), 10)
    assert about.mean == pytest.approx(data.dataset.mean)
    assert result["pruned"]["parameters"] == models.num_parameters(network) < result["dense"]["parameters"]
    assert network.get_submodule("layers.0").out_features == len(network.get_parameter("layers.0.weight"))
    assert all(result["latency"][batch][name] > 0 for batch in (1, 256) for name in ("dense", "pruned"))
    scores = summarise(class_probabilities(network, data.test[0]), data.test[1])
    assert result["scores"] == {"accuracy": scores["accuracy"], "NLL": scores["nll"]}
    assert about.origin.startswith(
        "run, chain 1, magnitude, in chain, 99 % (99.0% of the weights pruned), mean of 2 draws"
    )
    lines = table(result).splitlines()
    assert lines[0].startswith(f"{about.origin}: accuracy")
    assert [line.split()[0] for line in lines[4:] if line] == [
        *("dense", "pruned", "pruned", "multiply-adds:", "ms:", "inputs:", "outputs:")
    ]
    assert "outputs: T-shirt/top, Trouser, " in lines[-1]


def test_a_program_is_timed_against_a_program(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither network is called in a way in which the other is not."""
    timed: list[type] = []
    said = "ms: a pass of either network, both read from .pt2 files"

    def types(dense: nn.Module, pruned: nn.Module, inputs: torch.Tensor, rounds: int) -> dict[str, object]:
        timed.extend([type(dense), type(pruned)])
        return {}

    monkeypatch.setattr("sgmcmc_prune.run.export.latency", types)
    assert export(finished, tmp_path / "net.pt2", NetworkChoice())["timed"] == said
    assert timed == [Program] * 4
    export(finished, tmp_path / "net.safetensors", NetworkChoice())
    assert timed[4:] == [models.MLP] * 4


def test_of_a_network_that_keeps_all_of_its_units_no_ratio_is_claimed(finished: Path, tmp_path: Path) -> None:
    result = export(finished, tmp_path / "net.safetensors", NetworkChoice(target=0.5), rounds=6)
    assert result["pruned"] == result["dense"]
    assert result["not_cut"].startswith("no unit could be removed whole (a unit goes where its mask leaves it constant")
    assert result["not_cut"].endswith("; --prior.group node, filter or head prunes whole units)")
    text = table(result)
    assert "as large as the dense one, with zeros in place: no unit could be removed whole" in text
    assert "pruned / dense" not in text


def test_the_default_is_the_sparsest_network_that_is_not_starved(finished: Path, tmp_path: Path) -> None:
    """One mask of one chain lets a single input through: its target is passed over, but not refused."""
    run_dir, net = Path(shutil.copytree(finished, tmp_path / "run")), tmp_path / "net.safetensors"

    def starve(target: str) -> None:
        path = run_dir / "forks" / "magnitude" / "masks" / f"chain1-{target}.safetensors"
        mask = masks.load(path)
        mask["layers.0.weight"][:, 1:] = False
        masks.save(path, mask)

    before = export(run_dir, net, NetworkChoice(), rounds=6)
    assert (", 99 % (" in before["origin"], before["notes"]) == (True, [])
    starve("0.99")
    passed = "passed over: 99 %, where a layer is starved in a chain (--target takes it all the same)"
    default = export(run_dir, net, NetworkChoice(), rounds=6)
    assert (", 50 % (" in default["origin"], default["notes"]) == (True, [passed])
    starved = export(run_dir, net, NetworkChoice(target=0.99, chain=1), rounds=6)
    line = "STARVED: almost nothing passes layers.0.weight under the mask of chain 1"
    assert (", 99 % (" in starved["origin"], starved["notes"]) == (True, [line])
    assert table(starved).splitlines()[1] == line
    assert export(run_dir, net, NetworkChoice(target=0.99), rounds=6)["notes"] == []
    starve("0.5")
    every = export(run_dir, net, NetworkChoice(chain=1), rounds=6)
    assert ", 99 % (" in every["origin"]
    assert every["notes"] == [line, "at every target of the run a layer is starved in a chain; this is the sparsest"]


def test_the_latency_of_a_run_is_that_of_its_pruned_network(finished: Path) -> None:
    case = latency.of_run(finished)
    assert "magnitude, in chain, 99 %" in case.origin
    assert masks.sparsity(case.mask) == pytest.approx(0.99, abs=1e-3)
    assert not case.dense.training


def test_a_post_hoc_decision_is_exported(finished: Path, tmp_path: Path) -> None:
    choice = NetworkChoice(when="post_hoc", criterion="inclusion_probability", decision="median")
    result = export(finished, tmp_path / "net.safetensors", choice, rounds=6)
    assert "post hoc, median" in result["origin"]


def num_counted(run_dir: Path) -> int:
    """Parameters of the dense network in a run's table."""
    return int(read_json(run_dir / "metrics.json", checksum=True)["dense"]["parameters"])


def test_a_regression_is_cut_too_and_its_file_says_what_the_noise_is(tmp_path: Path) -> None:
    short = {"schedule.burn_in": 100, "schedule.sample": 100, "schedule.draws": 4, "chains": 2}
    chosen = replace(PRESETS["regression"](), **short)
    run(chosen, tmp_path / "run", progress=False)
    with pytest.raises(ValueError, match="has nothing pruned in_chain; ask for --when post_hoc"):
        export(tmp_path / "run", tmp_path / "net.safetensors", NetworkChoice())
    choice = NetworkChoice(when="post_hoc", criterion="magnitude", target=0.7)
    result = export(tmp_path / "run", tmp_path / "net.safetensors", choice, rounds=6)
    network, about = load_network(tmp_path / "net.safetensors")
    finished = Run(chosen, tmp_path / "run")
    whole = finished.model(0)
    whole.load_state_dict(average([WeightStore(finished.places.draws).load(0, draw) for draw in range(4)]))
    assert isinstance(whole, LearnedNoise)
    assert about.noise == pytest.approx(whole.log_noise.exp().tolist())
    groups = finished.groups(whole)
    states = [load_averages(finished.places, chain) for chain in range(2)]
    asked = [a for a in asked_post_hoc(chosen) if (a.criterion, a.target) == ("magnitude", 0.7)]
    (decided,) = decided_post_hoc(chosen, groups, states, held_out_losses(finished), asked)
    masks.apply(decided.masks[0], dict(whole.named_parameters()))
    x, y = finished.evaluation_split
    torch.testing.assert_close(network(x), whole(x)[:, :1])
    rmse = float((network(x) - y.reshape(-1, 1)).detach().square().mean().sqrt()) * about.targets[1]
    assert result["scores"]["RMSE"] == pytest.approx(rmse, rel=1e-5)
    assert about.likelihood == "gaussian"
    assert result["pruned"]["parameters"] <= result["dense"]["parameters"] == 49
    assert "RMSE" in table(result)
    assert num_counted(tmp_path / "run") == result["dense"]["parameters"] == 49


def test_the_file_of_several_targets_gives_them_in_their_units(tmp_path: Path) -> None:
    """What it says turns features as in the data's file into targets as there, one a thousand times the other."""
    x = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    rows = [f"{a},{b},{5 + a},{1000 * (a - b)}" for a, b in x.tolist()]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,y,z", *rows]))
    short = {"schedule.burn_in": 100, "schedule.sample": 100, "schedule.draws": 4, "chains": 1, "probes": 20}
    data = {"data.name": f"csv:{tmp_path / 't.csv'}:y,z", "data.validation": 0, "data.batch_size": 54}
    run(replace(PRESETS["regression"](), **short, **data), tmp_path / "run", progress=False)
    choice = NetworkChoice(when="post_hoc", criterion="magnitude", target=0.7)
    result = export(tmp_path / "run", tmp_path / "net.pt2", choice, rounds=6)
    assert "in standard deviations of the targets on the test split" in table(result)
    last = "outputs in the unit of the targets: unit * output + centre of each target, the pair `each_target`"
    assert table(result).splitlines()[-1].startswith(last)
    assert "inputs: a, b: (x - centre) / scale of each feature" in table(result)
    assert "\ntargets: y, z\n" in table(result)
    network, about = read_program(tmp_path / "net.pt2")
    assert (about.columns, about.target_names, about.classes) == (("a", "b"), ("y", "z"), ())
    (near, scale), (centre, unit) = (map(torch.tensor, pair) for pair in (about.features, about.each_target))
    features = Run(replace(PRESETS["regression"](), **short, **data)).data.test[0] * scale + near
    truth = torch.stack([5 + features[:, 0], 1000 * (features[:, 0] - features[:, 1])], 1)
    predicted = unit * network((features - near) / scale).detach() + centre
    assert result["scores"]["RMSE"] == pytest.approx(
        float(((predicted - truth) / unit).square().mean().sqrt()), rel=1e-3
    )


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (NetworkChoice(chain=2), "chains 0 to 1"),
        (NetworkChoice(criterion="random"), "it has magnitude, and random post_hoc$"),
        (NetworkChoice(criterion="lamp"), "it has magnitude$"),
        (NetworkChoice(target=0.7), "no target 0.7; it has 0.5, 0.99"),
        (NetworkChoice(decision="median"), "post hoc alone"),
        (NetworkChoice(when="post_hoc", criterion="magnitude", decision="fdr"), "it has fdr by inclusion_prob"),
    ],
)
def test_what_a_run_does_not_have_is_named(finished: Path, tmp_path: Path, choice: NetworkChoice, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        export(finished, tmp_path / "net.safetensors", choice)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["net.pt", "net.pth", "net", "net.safetensors.gz"])
def test_another_format_is_refused_before_anything_is_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"no format; name it net(\.safetensors)+, \.pt2 or \.onnx$"):
        export(tmp_path / "no run", tmp_path / name, NetworkChoice())


def test_onnx_says_what_it_takes_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"onnx, onnxscript, onnxruntime not installed; pip install"):
        export(tmp_path / "no run", tmp_path / "net.onnx", NetworkChoice())


@pytest.mark.parametrize("ending", [".pt2", ".onnx"])
def test_a_program_gives_what_the_weights_give(finished: Path, tmp_path: Path, ending: str) -> None:
    """Any number of examples, the same scores, and the file says what it is."""
    if ending == ".onnx" and why_no_onnx():
        pytest.skip(why_no_onnx())
    weights = export(finished, tmp_path / "net.safetensors", NetworkChoice(), rounds=6)
    found = export(finished, tmp_path / f"net{ending}", NetworkChoice(), rounds=6)
    assert found["scores"] == pytest.approx(weights["scores"], abs=1e-6)
    assert found["pruned"] == weights["pruned"]
    assert found["bytes"] < 2 * weights["bytes"] + 100_000  # none of the data is in it
    assert found["inputs"].startswith("inputs: (x - mean) / std of each channel")
    content = (tmp_path / f"net{ending}").read_bytes()
    assert str(Path(__file__).parents[1]).encode() not in content
    program, about = read_program(tmp_path / f"net{ending}")
    network, as_weights = load_network(tmp_path / "net.safetensors")
    assert about == as_weights
    for count in (1, 7):
        inputs = torch.randn(count, *about.input_shape)
        torch.testing.assert_close(program(inputs), network(inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("damage", ["cut", "changed", "text", "foreign"])
def test_a_damaged_program_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str], damage: str) -> None:
    """Torch would log its traceback beside it."""
    path = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(nn.Linear(3, 2), (torch.zeros(4, 3),)), path)
    whole = path.read_bytes()
    half = len(whole) // 2
    capfd.readouterr()
    changed = whole[:half] + b"xxxxxx" + whole[half + 6 :]
    path.write_bytes({"cut": whole[:half], "changed": changed, "text": b"no program", "foreign": whole}[damage])
    expected = (
        "has not written: it does not say what" if damage == "foreign" else r"is no whole program \([\d,]+ bytes; "
    )
    with pytest.raises(ValueError, match=expected) as caught:
        read_program(path)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_what_a_program_cannot_hold_is_named(tmp_path: Path) -> None:
    class Branching(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    about = About("user:make", None, (3,), 3, (0.0,), (1.0,))
    with pytest.raises(ValueError, match=r"Branching cannot be written as \.pt2 \(.*\); write \.safetensors"):
        write_program(tmp_path / "net.pt2", Branching(), about)
    assert not list(tmp_path.iterdir())


def test_a_folder_is_no_file_to_export_to(tmp_path: Path) -> None:
    (tmp_path / "net.safetensors").mkdir()
    with pytest.raises(ValueError, match="is a folder"):
        export(tmp_path / "no run", tmp_path / "net.safetensors", NetworkChoice())


def test_an_unfinished_run_is_told_to_go_on(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not finished; go on with: sgmcmc-prune resume"):
        export(new_run(config(), tmp_path / "run"), tmp_path / "net.safetensors", NetworkChoice())


def test_a_run_without_draws_says_how_to_keep_them(tmp_path: Path) -> None:
    without = small(**{"prune.in_chain": ("magnitude",), "chains": 1, "keep_weight_draws": False})
    run(without, tmp_path / "run", progress=False)
    with pytest.raises(ValueError, match="--keep-weight-draws"):
        export(tmp_path / "run", tmp_path / "net.safetensors", NetworkChoice())


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = nn.Linear(3, 4), nn.Linear(4, 3)
        self.decode.weight = nn.Parameter(torch.zeros(3, 4))
        self.again = nn.Linear(3, 4)
        self.again.weight = self.encode.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decode(self.encode(x) + self.again(x))


def test_tied_weights_are_still_one_when_they_are_read(tmp_path: Path) -> None:
    model = Tied()
    save_network(tmp_path / "net.safetensors", model, About("own:net", None, (3,), 3, (0.0,), (1.0,)))
    read, _ = load_network(tmp_path / "net.safetensors", lambda shape, outputs: Tied())
    assert read.get_parameter("encode.weight") is read.get_parameter("again.weight")
    assert models.num_parameters(read) == models.num_parameters(model)
    x = torch.randn(5, 3)
    torch.testing.assert_close(read(x), model(x))


def test_files_that_hold_no_such_network_are_refused(tmp_path: Path) -> None:
    model = models.build("lenet", (1, 28, 28), 10, seed=0)
    path = tmp_path / "net.safetensors"
    save_network(path, model, ABOUT)
    read, about = load_network(path)
    assert about == ABOUT
    assert all(torch.equal(value, read.state_dict()[name]) for name, value in model.state_dict().items())
    save_network(path, model, About("mlp", None, (1, 28, 28), 10, (0.5,), (0.25,)))
    with pytest.raises(ValueError, match=r"does not fit .mlp.: only one of them has conv1\.bias"):
        load_network(path)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(ValueError, match="not a whole file of tensors"):
        load_network(path)
    masks.save(path, {"w": torch.ones(2, dtype=torch.bool)})
    with pytest.raises(ValueError, match=r"is not of format sgmcmc_prune.network/2: its format is sgmcmc_prune.mask/1"):
        load_network(path)


def test_inputs_that_a_run_takes_as_they_are_are_not_called_pixels(finished: Path, tmp_path: Path) -> None:
    export(finished, tmp_path / "net.safetensors", NetworkChoice(), rounds=6)
    about = load_network(tmp_path / "net.safetensors")[1]
    said = inputs_in_words(dataclasses.replace(about, mean=(0.0,), std=(1.0,)))
    assert said == "inputs: as the data set gives them; the run has not normalised them"
