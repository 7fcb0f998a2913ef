"""ImageNet's path on a small folder of real pictures: prepare, train, checkpoint, resume, prune, evaluate."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sgmcmc_prune import data
from sgmcmc_prune.cli import main
from sgmcmc_prune.data import shards
from sgmcmc_prune.data.augmentation import Augmentation
from sgmcmc_prune.data.batches import MinibatchStream
from sgmcmc_prune.data.class_folders import read_picture
from sgmcmc_prune.data.pictures import PictureInputs
from sgmcmc_prune.data.prefetch import PrefetchedStream
from sgmcmc_prune.run.config import RunConfig
from sgmcmc_prune.settings import replace
from sgmcmc_prune.store.checkpoint import load
from sgmcmc_prune.store.files import read_json

Image = pytest.importorskip("PIL.Image")
CLASSES = ("n01440764", "n02102040", "n03000684")
COUNTS = {"train": 12, "val": 4}
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.2, 0.25)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of Fashion-MNIST images as colour pictures: PNG of odd sizes for training, JPEG for validation."""
    root = tmp_path_factory.mktemp("pictures")
    images = data.load("fashion-mnist-subset").train
    for split, count in COUNTS.items():
        for label, name in enumerate(CLASSES):
            (root / split / name).mkdir(parents=True)
            for i, grey in enumerate(images.images[images.labels == label][:count, 0].numpy()):
                picture = Image.fromarray(np.stack([grey, grey // 2, 255 - grey], 2)).resize((32 + i, 32))
                picture.save(root / split / name / f"{name}_{i}.{'png' if split == 'train' else 'JPEG'}")
    return root


@pytest.fixture(scope="module")
def prepared(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same pictures as shards of ten."""
    folder = tmp_path_factory.mktemp("shards") / "imagenet"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "PER_SHARD", 10)
        shards.prepare(source, folder, size=32, progress=False)
    return folder


def copy(folder: Path, target: Path) -> Path:
    """A copy that a test may damage."""
    target.mkdir()
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def config(folder: Path) -> RunConfig:
    """Two training steps, one draw, one target, a small network."""
    changes = {
        "preset": "test",
        "chains": 1,
        "probes": 4,
        "data.name": "imagenet",
        "data.data_dir": folder,
        "data.validation": 6,
        "data.batch_size": 10,
        "data.augmentation": "resized_crop_flip",
        "data.workers": 2,
        "model.name": "resnet20",
        "sampler.preconditioner": "identity",
        "sampler.lr": 0.001,
        "sampler.lr_explore": 0.001,
        "sampler.lr_min": 0.0005,
        "schedule.burn_in": 0.34,
        "schedule.cycles": 1,
        "schedule.explore": 0.34,
        "schedule.sample": 0.34,
        "schedule.relax": 0.0,
        "schedule.draws": 1,
        "prune.targets": (0.5,),
        "prune.in_chain": ("magnitude",),
        "prune.post_hoc": ("magnitude",),
        "prune.explore": 0.67,
        "prune.sample": 0.34,
        "prune.relax": 0.0,
        "prune.draws": 1,
        "checkpoint_seconds": 0.0,
        "keep_weight_draws": True,
    }
    made: RunConfig = replace(RunConfig(), **changes)
    return made


# --- shards ------------------------------------------------------------------------------------------------------


def test_shards_hold_the_pixels_of_the_pictures(source: Path, prepared: Path) -> None:
    for split, count in COUNTS.items():
        pictures = shards.open_split(prepared, split)
        assert pictures.labels.bincount().tolist() == [count] * 3
        assert pictures.labels.tolist() != sorted(pictures.labels.tolist())
        stored = pictures.source.read(np.arange(len(pictures)))
        by_label: dict[int, set[bytes]] = {0: set(), 1: set(), 2: set()}
        for pixels, label in zip(stored, pictures.labels.tolist(), strict=True):
            by_label[label].add(pixels.tobytes())
        for label, name in enumerate(CLASSES):
            files = list((source / split / name).iterdir())
            assert by_label[label] == {read_picture(file, 32).tobytes() for file in files}


def test_a_picture_of_the_stored_size_is_kept_byte_for_byte(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png", 32), pixels)


def test_wide_pictures_are_scaled_by_their_short_side_and_cut_in_the_middle(tmp_path: Path) -> None:
    stripes = np.zeros((32, 96, 3), np.uint8)
    stripes[:, 32:64] = 200
    Image.fromarray(stripes).save(tmp_path / "a.png")
    assert (read_picture(tmp_path / "a.png", 32) == 200).all()


def test_preparing_again_redoes_only_what_is_damaged(
    source: Path, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "PER_SHARD", 10)
    folder = copy(prepared, tmp_path / "s")
    (folder / "train-00001.npy").unlink()
    (folder / "train-00002.json").unlink()
    (folder / "index.json").unlink()
    damaged = folder / "val-00000.npy"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    decoded = []
    monkeypatch.setattr(shards, "read_picture", lambda file, size: decoded.append(file) or read_picture(file, size))
    shards.prepare(source, folder, size=32, progress=False)
    assert len(decoded) == 30
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {p.name: p.read_bytes() for p in prepared.iterdir()}


def test_command_line(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["prepare", "imagenet", str(source), str(tmp_path / "s"), "--size", "32", "--processes", "1"])
    shown = capsys.readouterr()
    assert "train: 36 pictures in 1 shards, 0 skipped" in shown.out
    assert f"--data.data-dir {tmp_path / 's'}" in shown.out
    assert "48/48" in shown.err
    with pytest.raises(SystemExit) as stop:
        main(["prepare", "imagenet", str(tmp_path / "none"), str(tmp_path / "s")])
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.slow
def test_processes_make_the_same_shards(source: Path, tmp_path: Path) -> None:
    shards.prepare(source, tmp_path / "two", size=32, processes=2, progress=False)
    shards.prepare(source, tmp_path / "one", size=32, progress=False)
    for file in (tmp_path / "one").iterdir():
        assert (tmp_path / "two" / file.name).read_bytes() == file.read_bytes()


def test_corrupt_picture_is_named_and_skipped_only_on_request(source: Path, tmp_path: Path) -> None:
    for split in COUNTS:
        for file in (source / split).rglob("*.*"):
            target = tmp_path / "src" / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    bad = tmp_path / "src" / "train" / CLASSES[1] / f"{CLASSES[1]}_3.png"
    bad.write_bytes(bad.read_bytes()[:60])
    with pytest.raises(ValueError, match=rf"{bad.name} is not a readable picture .*--skip-corrupt"):
        shards.prepare(tmp_path / "src", tmp_path / "a", size=32, progress=False)
    index = shards.prepare(tmp_path / "src", tmp_path / "b", size=32, skip_corrupt=True, progress=False)
    assert (index["train"]["pictures"], index["train"]["skipped"]) == (35, [f"{CLASSES[1]}/{bad.name}"])
    dataset = data.load("imagenet", tmp_path / "b")
    assert (len(dataset.train), dataset.provenance["skipped_pictures"]) == (35, 1)
    with pytest.raises(ValueError, match="begun with skip_corrupt False instead of True"):
        shards.prepare(tmp_path / "src", tmp_path / "a", size=32, skip_corrupt=True, progress=False)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda s: (s / "train-00001.npy").unlink(), r"shard .*train-00001\.npy cannot be read .*prepare"),
        (lambda s: (s / "train-00001.npy").write_bytes(b"\x93NUMPY"), r"train-00001\.npy cannot be read"),
        (
            lambda s: (s / "train-00001.npy").write_bytes((s / "train-00001.npy").read_bytes()[:-5000]),
            r"train-00001\.npy cannot be read",
        ),
        (
            lambda s: np.save(s / "train-00001.npy", np.zeros((10, 32, 32, 4), np.uint8)),
            r"holds uint8 of shape \(10, 32, 32, 4\), expected uint8 of shape \(10, 32, 32, 3\)",
        ),
        (lambda s: (s / "index.json").unlink(), "has shards but no index.json; finish it"),
    ],
)
def test_damaged_shards_are_named(prepared: Path, tmp_path: Path, damage: object, message: str) -> None:
    folder = copy(prepared, tmp_path / "s")
    damage(folder)
    with pytest.raises(ValueError, match=message):
        data.load("imagenet", folder)


def test_refused_before_anything_is_decoded(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(ValueError, match="other is not empty and holds no shards"):
        shards.prepare(source, tmp_path / "other", size=32, progress=False)
    with pytest.raises(ValueError, match=r"none has no class folders|train has no class folders"):
        shards.prepare(tmp_path / "none", tmp_path / "x", size=32, progress=False)
    usage = shards.shutil.disk_usage(tmp_path)._replace(free=100_000)
    monkeypatch.setattr(shards.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ValueError, match=r"the shards need 0\.00 GB under .* and 0\.00 GB are free"):
        shards.prepare(source, tmp_path / "full", size=32, progress=False)
    assert not list((tmp_path / "full").glob("*.npy"))


def test_class_folders_that_differ_are_named(tmp_path: Path) -> None:
    for split, classes in (("train", "abc"), ("val", "abd")):
        for name in classes:
            (tmp_path / split / name).mkdir(parents=True)
    for attempt in (lambda: data.load("imagenet", tmp_path), lambda: shards.prepare(tmp_path, tmp_path / "x", size=32)):
        with pytest.raises(ValueError, match=r"train has 3 class folders and .*val 3; 2 differ: c, d"):
            attempt()
    with pytest.raises(ValueError, match=r"no ImageNet in .*give --data.data-dir with shards"):
        data.load("imagenet", tmp_path / "nothing")


# --- inputs and minibatches ----------------------------------------------------------------------------------------


def inputs(folder: Path) -> tuple[PictureInputs, torch.Tensor]:
    """The training pictures as a run sees them."""
    train = shards.open_split(folder, "train")
    return train.inputs(MEAN, STD, "cpu"), train.labels


def test_inputs_are_the_normalised_middle(prepared: Path) -> None:
    x, _ = inputs(prepared)
    assert tuple(x.shape) == (36, 3, 28, 28)
    stored = torch.from_numpy(x.pictures.source.read(np.arange(36))).permute(0, 3, 1, 2)[:, :, 2:30, 2:30].float() / 255
    expected = (stored - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    torch.testing.assert_close(x[3:7], expected[3:7])
    torch.testing.assert_close(x[torch.tensor([30, 2])], expected[[30, 2]])
    batches = x.split(10)[:3]
    assert [len(b) for b in batches] == [10, 10, 10]
    torch.testing.assert_close(torch.cat(list(x.split(10))), expected)


@pytest.mark.parametrize("workers", [1, 3])
def test_prefetched_batches_are_those_of_the_plain_stream(prepared: Path, workers: int) -> None:
    x, labels = inputs(prepared)
    augment = Augmentation("resized_crop_flip", 28, torch.zeros(3), seed=4, chain=1)
    plain = MinibatchStream(x[:], labels, 10, seed=4, chain=1)
    stream = PrefetchedStream(x, labels, 10, seed=4, chain=1, workers=workers)
    augmented = PrefetchedStream(x, labels, 10, seed=4, chain=1, transform=augment, workers=workers)
    assert (stream.num_data, stream.steps_per_epoch) == (36, 3.6)
    for step in (0, 1, 2, 3, 4, 9, 3, 3):  # in order, ahead, back, and again: as after a resume or in a fork
        images, targets = stream.batch(step)
        torch.testing.assert_close(images, plain.batch(step)[0])
        assert torch.equal(targets, plain.batch(step)[1])
        again = PrefetchedStream(x, labels, 10, seed=4, chain=1, transform=augment).batch(step)[0]
        assert torch.equal(augmented.batch(step)[0], again)


def test_bad_stream(prepared: Path) -> None:
    x, labels = inputs(prepared)
    with pytest.raises(ValueError, match="workers is 0; pictures are read by at least one"):
        PrefetchedStream(x, labels, 10, seed=0, chain=0, workers=0)
    with pytest.raises(ValueError, match="step is -1"):
        PrefetchedStream(x, labels, 10, seed=0, chain=0).batch(-1)


def test_class_folders_can_be_used_as_they_are(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGMCMC_PRUNE_DATA", str(source))
    dataset = data.load("imagenet")
    assert (dataset.num_classes, len(dataset.train), len(dataset.test)) == (3, 36, 12)
    assert dataset.classes == tuple(sorted(path.name for path in (source / "train").iterdir() if path.is_dir()))
    assert (dataset.provenance["layout"], dataset.provenance["official"]) == ("class folders", False)
    train, validation = data.hold_out(dataset.train, 6, seed=0)
    assert (len(train), len(validation)) == (30, 6)
    assert validation.inputs(MEAN, STD, "cpu")[:2].shape == (2, 3, 224, 224)


# --- the whole path ------------------------------------------------------------------------------------------------


def test_train_interrupt_resume_prune_evaluate(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sgmcmc_prune.chains.chain import Chain
    from sgmcmc_prune.run.main import resume, run

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    metrics = run(config(prepared), whole, progress=False)
    assert [row["sparsity"] for row in metrics["pruned"]] == pytest.approx([0.5, 0.5], abs=1e-3)
    assert metrics["data"] == {"name": "imagenet", "official": False}
    facts = read_json(whole / "run.json")
    assert any(line.startswith("augmentation resized_crop_flip") for line in facts["departures"])
    assert any(line.startswith("batch normalisation") for line in facts["departures"])

    advance = Chain.advance

    def power_cut(chain: Chain) -> object:
        if chain.step == 2:
            raise KeyboardInterrupt
        return advance(chain)

    with monkeypatch.context() as patch:
        patch.setattr(Chain, "advance", power_cut)
        with pytest.raises(KeyboardInterrupt):
            run(config(prepared), broken, progress=False)
    assert (broken / "checkpoints" / "chain0.safetensors").exists()
    resumed = resume(broken, progress=False)
    assert json.dumps(resumed, default=str) == json.dumps(metrics, default=str)
    moments = [load(folder / "averages" / "chain0.safetensors")["moments"] for folder in (whole, broken)]
    assert all(torch.equal(moments[0][key]["mean"], moments[1][key]["mean"]) for key in moments[0] | moments[1])
