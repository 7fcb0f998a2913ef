"""From stored draws to the table: foreign images, and BatchNorm statistics that belong to each draw."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from sgmcmc_prune.data import Dataset, Images, load
from sgmcmc_prune.data.ood import foreign_inputs
from sgmcmc_prune.predictive.metrics import auroc
from sgmcmc_prune.predictive.predict import posterior_predictive
from sgmcmc_prune.pruning import masks
from sgmcmc_prune.pruning.masked import masked_network
from sgmcmc_prune.run.config import DataConfig, ModelConfig, PriorConfig, PruneConfig, RunConfig, ScheduleConfig
from sgmcmc_prune.run.evaluate import Predictor, evaluate
from sgmcmc_prune.run.main import run
from sgmcmc_prune.run.run import Run
from sgmcmc_prune.run.tables import metrics_table, with_half_width
from sgmcmc_prune.settings import replace
from sgmcmc_prune.store.weights import WeightStore
from sgmcmc_prune.text_table import number

QUICK = RunConfig(
    data=DataConfig(validation=6500, batch_size=125),
    model=ModelConfig("linear"),
    prior=PriorConfig(spike_variance=1e-3),
    schedule=ScheduleConfig(burn_in=2.0, cycles=1, explore=1.0, sample=1.0, relax=0.25, draws=2),
    prune=PruneConfig(targets=(0.5,), post_hoc=("magnitude",), in_chain=("magnitude",), draws=1),
    probes=4,
    keep_weight_draws=True,
)
NORMALISED = replace(QUICK, **{"model.name": "test_evaluate:normalised", "chains": 1})


def normalised(input_shape: tuple[int, ...], num_classes: int) -> torch.nn.Module:
    """A user's own network with batch normalisation."""
    hidden = (torch.nn.Flatten(), torch.nn.Linear(784, 12), torch.nn.BatchNorm1d(12), torch.nn.ReLU())
    return torch.nn.Sequential(*hidden, torch.nn.Linear(12, num_classes))


def test_a_starved_layer_is_named_in_the_table(tmp_path: Path) -> None:
    targets = {"prune.targets": (0.9995,), "prune.in_chain": (), "model.name": "lenet", "chains": 1}
    config = replace(QUICK, **targets, **{"schedule.burn_in": 0.0, "schedule.explore": 0.0})
    metrics = run(config, tmp_path / "run", progress=False)
    assert metrics["dense"]["starved"] == []
    starved = metrics["pruned"][0]["starved"]
    assert "conv3.weight" in starved
    assert f"STARVED: magnitude post hoc 99.95%: almost nothing passes {', '.join(starved)}" in metrics_table(metrics)


def test_masks_that_were_decided_by_tie_are_named_in_the_table(tmp_path: Path) -> None:
    """A network whose first layer starts at zero and hardly moves: no score tells its weights apart."""
    changes = {
        "model.name": "test_evaluate:flat",
        "prune.targets": (0.5,),
        "prune.in_chain": ("magnitude",),
        "chains": 1,
    }
    config = replace(QUICK, **changes, **{"sampler.temperature": 0.0, "em.kind": "fixed"})
    metrics = run(config, tmp_path / "run", progress=False)
    for row in metrics["pruned"]:
        assert row["tied"] > 0.9
    text = metrics_table(metrics)
    assert "TIED: magnitude post hoc 50%: 100.0% of the groups have the score of a group with the opposite fate" in text
    assert "TIED: magnitude in chain 50%" in text


def test_large_scores_are_read_at_a_glance() -> None:
    """From 1,000 on in groups of three and without decimals, as is what stands beside them."""
    assert [number(value, 4) for value in (115573.1091, -1234.5, 999.5, None)] == ["115,573", "-1,234", "999.5000", "-"]
    assert with_half_width(115573.1091, 512.25) == "115,573 ± 512"
    assert with_half_width(-12.5, 8.25, "+", beside=44104.0) == "-12 ± 8"
    assert with_half_width(0.9075, 0.0021, "+") == "+0.9075 ± 0.0021"


def flat(input_shape: tuple[int, ...], num_classes: int) -> torch.nn.Module:
    """Its first layer multiplies nothing: all its weights stay equal."""

    class Flat(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide, self.last = torch.nn.Linear(784, 40, bias=False), torch.nn.Linear(1, num_classes)
            torch.nn.init.zeros_(self.wide.weight)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.wide(x.flatten(1)).square().sum(1, keepdim=True) + x.mean((1, 2, 3))[:, None])

    return Flat()


def test_output_units_are_never_pruned_whole(tmp_path: Path) -> None:
    changes = {"model.name": "mlp", "prior.group": "node", "prune.targets": (0.8,), "prune.in_chain": ()}
    config = replace(QUICK, **changes, **{"chains": 1, "prune.allocation": "layerwise"})
    job = Run(config)
    model = job.model(0)
    names = [name for name, p in model.named_parameters() if p.dim() > 1]
    assert list(job.groups(model)) == names[:-1]
    assert list(job.prior(model, 0).layers) == names[:-1]
    metrics = run(config, tmp_path / "run", progress=False)
    assert metrics["pruned"][0]["sparsity"] == pytest.approx(0.8, abs=0.01)
    assert metrics["pruned"][0]["starved"] == []


def write_idx(folder: Path, images: np.ndarray) -> None:
    folder.mkdir()
    header = struct.pack(">4I", 0x803, *images.shape)
    (folder / "t10k-images-idx3-ubyte").write_bytes(header + images.astype(np.uint8).tobytes())


def test_foreign_images_are_detected_by_the_pooled_predictive(tmp_path: Path) -> None:
    write_idx(tmp_path / "foreign", np.random.default_rng(0).integers(0, 256, (30, 28, 28)))
    config = replace(QUICK, **{"ood": "idx", "ood_dir": tmp_path / "foreign"})
    metrics = run(config, tmp_path / "run", progress=False)
    data = Run(config).data
    foreign = foreign_inputs("idx", tmp_path / "foreign", data.dataset, (1, 28, 28), "cpu")
    assert foreign.shape == (30, 1, 28, 28)
    model = Run(config, data=data).model(0)
    for row, stage in ((metrics["dense"], ""), (metrics["pruned"][-1], "forks/magnitude")):
        folder, probabilities = tmp_path / "run" / stage, []
        weights, draws = WeightStore(folder / "draws"), 1 if stage else 2
        for inputs in (data.test[0], foreign):
            each = []
            for chain in range(2):
                mask = masks.load(folder / "masks" / f"chain{chain}-0.5.safetensors") if stage else None
                found = (weights.load(chain, draw) for draw in range(draws))
                each.append(posterior_predictive(model, found, inputs, mask).probabilities)
            probabilities.append(torch.stack(each).mean(0))
        assert row["ood_auroc"] == pytest.approx(
            auroc(*(torch.special.entr(p).sum(1) for p in probabilities)), abs=1e-9
        )
        assert 0 <= row["ood_auroc_mutual_information"] <= 1
    header, _, dense, *_ = metrics_table(metrics).splitlines()
    assert header.split()[-4:] == ["OOD", "AUROC", "by", "MI"]
    assert dense.split()[-2:] == [f"{metrics['dense'][k]:.4f}" for k in ("ood_auroc", "ood_auroc_mutual_information")]
    assert f"images of idx in {tmp_path / 'foreign'}" in metrics_table(metrics)


def test_the_same_images_are_not_foreign(tmp_path: Path) -> None:
    metrics = run(replace(QUICK, ood="fashion-mnist-subset"), tmp_path / "run", progress=False)
    for row in (metrics["dense"], *metrics["pruned"]):
        found = [row[key] for key in ("ood_auroc", "ood_auroc_mutual_information")]
        assert found == pytest.approx([0.5, 0.5], abs=1e-4)  # rounding decides between an image and itself


@pytest.mark.parametrize(
    ("name", "folder", "message"),
    [
        ("nonsense", None, "ood is 'nonsense'; choose one of svhn"),
        ("svhn", None, "give their folder as --ood-dir"),
        ("idx", None, "give their folder as --ood-dir"),
        ("idx", "empty", "holds neither t10k-images-idx3-ubyte.gz nor"),
        ("idx", "small", r"have shape \(1, 4, 4\), those of fashion-mnist-subset \(1, 28, 28\)"),
        ("cifar10-c:fog", "empty", "write cifar10-c:CORRUPTION:SEVERITY"),
        ("cifar10-c:fog:3", "empty", "holds no .npy file"),
    ],
)
def test_bad_foreign_sets_are_one_line(tmp_path: Path, name: str, folder: str | None, message: str) -> None:
    (tmp_path / "empty").mkdir()
    write_idx(tmp_path / "small", np.zeros((2, 4, 4)))
    where = None if folder is None else tmp_path / folder
    with pytest.raises(ValueError, match=message) as error:
        foreign_inputs(name, where, load("fashion-mnist-subset"), (1, 28, 28), "cpu")
    assert "\n" not in str(error.value)


def test_one_severity_of_a_corruption_is_a_foreign_set(tmp_path: Path) -> None:
    pixels = np.arange(10, dtype=np.uint8).repeat(32 * 32 * 3).reshape(10, 32, 32, 3)
    np.save(tmp_path / "fog.npy", pixels)
    np.save(tmp_path / "labels.npy", np.zeros(10, dtype=np.uint8))
    images = Images(torch.zeros(1, 3, 32, 32, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64))
    native = Dataset("colour", images, images, 10, (0.5,) * 3, (0.25,) * 3, {})
    found = foreign_inputs("cifar10-c:fog:3", tmp_path, native, (3, 32, 32), "cpu")
    expected = torch.tensor([(value / 255 - 0.5) / 0.25 for value in (4, 5)])  # two images a severity
    torch.testing.assert_close(found, expected.view(2, 1, 1, 1).expand(2, 3, 32, 32))


def test_dense_and_masked_rows_use_statistics_of_their_own_weights(tmp_path: Path) -> None:
    """What a chain carried along as running statistics does not enter any row."""
    out = tmp_path / "run"
    first = run(NORMALISED, out, progress=False)
    for stage in (out, out / "forks" / "magnitude"):
        weights = WeightStore(stage / "draws")
        for draw in range(2 if stage == out else 1):
            state = weights.load(0, draw)
            state["2.running_mean"] += 5.0
            weights.save(0, draw, state)
    again = evaluate(Run(NORMALISED, out), progress=False)
    assert (again["dense"], again["pruned"]) == (first["dense"], first["pruned"])
    assert first["dense"]["accuracy"] > 0.3


def test_networks_are_judged_in_the_precision_of_their_chains(tmp_path: Path) -> None:
    """Passes and BatchNorm statistics are rounded where the chains' were, and outputs are float32."""
    exact = run(NORMALISED, tmp_path / "run", progress=False)["dense"]
    rounded = Run(replace(NORMALISED, precision="bfloat16"), tmp_path / "run")
    draw, inputs = WeightStore(rounded.places.draws).load(0, 0), rounded.data.test[0]
    ((found,),) = Predictor(rounded).outputs([draw], {}, [inputs])
    with torch.autocast("cpu", torch.bfloat16):
        network = masked_network(rounded.model(0), draw, {}, rounded.statistics_batches()).eval()
        expected = network(inputs)
    assert (found.dtype, expected.dtype) == (torch.float32, torch.bfloat16)
    torch.testing.assert_close(found, expected.float())
    row = evaluate(rounded, progress=False)["dense"]
    assert row["nll"] != exact["nll"]
    assert row["nll"] == pytest.approx(exact["nll"], abs=0.01)


def test_rows_say_how_small_the_network_gets(tmp_path: Path) -> None:
    config = replace(NORMALISED, **{"prior.group": "node", "prune.post_hoc": ("magnitude",), "prune.in_chain": ()})
    metrics = run(config, tmp_path / "run", progress=False)
    assert metrics["not_shrinkable"] == ""
    assert metrics["dense"]["parameters"] == 785 * 12 + 2 * 12 + 13 * 10
    assert metrics["dense"]["multiply_adds"] == 784 * 12 + 12 * 10
    (row,) = metrics["pruned"]
    # Half of the weights are masked by whole nodes: constant nodes are folded into the output's bias.
    nodes = row["multiply_adds"] / (784 + 10)
    assert nodes == round(nodes) < 12
    assert row["parameters"] == 785 * nodes + 2 * nodes + (nodes + 1) * 10


def test_no_foreign_images_are_no_foreign_set(tmp_path: Path) -> None:
    write_idx(tmp_path / "empty", np.zeros((0, 28, 28)))
    with pytest.raises(ValueError, match=r"ood set idx in .*empty has no images"):
        foreign_inputs("idx", tmp_path / "empty", load("fashion-mnist-subset"), (1, 28, 28), "cpu")
