"""A comparison on augmented images: every method sees what training shows, and nothing else of the training images."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sgmcmc_prune.baselines import variational
from sgmcmc_prune.compare.cell import load_problem
from sgmcmc_prune.compare.comparison import compare
from sgmcmc_prune.compare.config import Comparison
from sgmcmc_prune.compare.method import Problem
from sgmcmc_prune.compare.methods import ALL, METHODS, TRACKS
from sgmcmc_prune.data.batches import Augmented, Transform, minibatches
from sgmcmc_prune.predictive.metrics import summarise
from sgmcmc_prune.run.config import DataConfig, ModelConfig
from sgmcmc_prune.run.data import Data
from sgmcmc_prune.run.run import Run

#: One for each way of looking at training images: minibatches, scores at the start, curvatures, a bound, a chain.
QUICK = ["gradual-magnitude", "grasp", "synflow", "sun-mixture", "sghmc-sa", "mean-field-snr", "flat-map", "spam-opd"]
QUICK += ["inclusion-in-chain", "expected-loss", "sgd-conditional-ggn", "obc", "filter-taylor", "deep-ensemble"]
#: Of a chain as short as these, no reduction is made; one to a horseshoe takes minutes, and looks at nothing else.
SLOW = sorted(ALL.keys() - {*QUICK, "bmr-chain", "bmr-horseshoe"})
#: Rows of a picture that the transform of these tests overwrites.
HIDDEN = 12


def normalised(input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    layers = [nn.Conv2d(1, 4, 7, stride=5), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(100, num_classes)]
    return nn.Sequential(*layers)


def bare(input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 7, stride=5), nn.ReLU(), nn.Flatten(), nn.Linear(100, num_classes))


def comparison(network: str, track: str = "trained", **changes: object) -> Comparison:
    settings: dict[str, object] = {
        "track": track,
        "sparsities": (0.5,),
        "seeds": (0,),
        "epochs": 10,
        "members": 2,
        "data": DataConfig(validation=6800, batch_size=20, augmentation="crop_flip"),
        "model": ModelConfig(name=f"{__name__}:{network}"),
    }
    return Comparison(**{**settings, **changes})  # type: ignore[arg-type]


def hiding(seed: int, chain: int) -> Transform:
    """Black rows, which no method can see behind."""

    def hide(inputs: Tensor, step: int, first: int) -> Tensor:
        return torch.cat([torch.zeros_like(inputs[..., :HIDDEN, :]), inputs[..., HIDDEN:, :]], -2)

    return hide


def problems(name: str, folder: Path) -> list[Problem]:
    """Two problems that differ in the rows that training never shows."""
    track = next(track for track, methods in TRACKS.items() if name in methods)
    layers_only = ALL[name].family == "laplace"
    found, _ = load_problem(comparison("bare" if layers_only else "normalised", track), folder, 0)
    (inputs, labels), (held, held_labels) = found.data.train[:2], found.data.validation
    other = inputs.clone()
    other[..., :HIDDEN, :] = 5 * torch.randn(other[..., :HIDDEN, :].shape, generator=torch.Generator().manual_seed(1))
    made = []
    for index, images in enumerate((inputs, other)):
        data = replace(found.data, train=Augmented(images, labels, hiding), validation=(held[:300], held_labels[:300]))
        made.append(replace(found, data=data, shared=folder / f"shared{index}"))
    return made


def check(name: str, folder: Path) -> None:
    """What a method leaves is the same to the bit, whatever its training never shows; and so is its budget."""
    left = []
    for index, problem in enumerate(problems(name, folder)):
        candidates = list(ALL[name].fit(problem, folder / f"own{index}"))
        for candidate in candidates:
            spent = candidate.cost.gradient_evaluations - candidate.calibration_examples
            assert spent / (problem.epochs * problem.num_data) == pytest.approx(1, abs=0.005)
        left.append((problem.data.validation[0], candidates))
    (inputs, first), (_, second) = left
    assert len(first) == len(second) > 0
    for one, other in zip(first, second, strict=True):
        assert all(torch.equal(a[n], b[n]) for a, b in zip(one.masks, other.masks, strict=True) for n in a)
        assert torch.equal(one.predict(inputs), other.predict(inputs))
        assert torch.equal(one.single(inputs), other.single(inputs))


@pytest.mark.filterwarnings("ignore:all gates")
@pytest.mark.parametrize("name", QUICK)
def test_a_method_sees_nothing_that_training_does_not_show(name: str, tmp_path: Path) -> None:
    check(name, tmp_path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:all gates", "ignore:nothing of")
@pytest.mark.parametrize("name", SLOW)
def test_neither_does_any_other_method(name: str, tmp_path: Path) -> None:
    check(name, tmp_path)


def test_normalisation_of_a_variational_fit_is_that_of_training(tmp_path: Path) -> None:
    fits = []
    for problem in problems("mean-field-snr", tmp_path):
        settings = variational.Settings(steps=30, batch_size=20, bound_draws=1, draws=2)
        fits.append(variational.fit(problem.network(), problem.data.train, settings))
    inputs = problem.data.validation[0]
    assert torch.equal(*(fit.single(inputs) for fit in fits))
    assert torch.equal(*(fit.pruned().single(inputs) for fit in fits))


def test_point_estimates_see_the_minibatches_of_the_first_chain(tmp_path: Path) -> None:
    problem, _ = load_problem(comparison("normalised"), tmp_path, 3)
    train = problem.data.train
    stream = minibatches(train, problem.batch_size, problem.seed, 0)
    plain = minibatches((train[0], train[1]), problem.batch_size, problem.seed, 0)
    for step in (0, 9):
        (ours, labels), (theirs, their_labels) = problem.run.stream(0).batch(step), stream.batch(step)
        assert torch.equal(ours, theirs)
        assert torch.equal(labels, their_labels)
        assert not torch.equal(theirs, plain.batch(step)[0])
    assert not torch.equal(*(minibatches(train, 20, seed, 0).batch(0)[0] for seed in (3, 4)))


def bright(part: tuple[Tensor, Tensor], low: float) -> tuple[Tensor, Tensor]:
    """Inverted pictures, so that black borders are unlike what they border."""
    return low - part[0], part[1]


def test_statistics_of_a_comparison_are_those_of_training(tmp_path: Path) -> None:
    """Crops of bright pictures have black borders; with statistics of pictures without borders accuracy falls."""
    long = comparison("normalised", sparsities=(0.1,), epochs=20, data=DataConfig(
        validation=3000, batch_size=100, augmentation="crop_flip"
    ))  # fmt: skip
    found, _ = load_problem(long, tmp_path, 0)
    mean, std = found.data.dataset.mean[0], found.data.dataset.std[0]
    low = (1 - mean) / std - mean / std  # x -> 1 - x in the units of the network
    train, validation, test = (
        bright(part[:2], low) for part in (found.data.train, found.data.validation, found.data.test)
    )
    plain = Data(found.data.dataset, train, validation, test)
    data = replace(plain, train=Run(found.config, data=plain).train)
    problem = replace(found, data=data)
    inputs, labels = validation
    (candidate,) = METHODS["gradual-magnitude"].fit(problem, tmp_path)
    accuracy = summarise(candidate.single(inputs), labels)["accuracy"]
    assert accuracy > 0.6
    without = Run(replace(found.config, data=replace(found.config.data, augmentation="none")), data=plain)
    fit = candidate.single.__self__  # type: ignore[attr-defined]
    other = fit.under(candidate.masks[0], without.statistics_batches())
    assert summarise(other.single(inputs), labels)["accuracy"] < accuracy - 0.03


def test_a_table_says_how_its_images_were_augmented(tmp_path: Path) -> None:
    asked = comparison("bare", methods=("snip",))
    rows = compare(asked, tmp_path, progress=False)
    assert [row["reason"] for row in rows] == ["", ""]
    assert {row["data"] for row in rows} == {"fashion-mnist-subset (not the official files), crop_flip"}
    with pytest.raises(ValueError, match="holds a comparison with other data; choose another --out"):
        compare(replace(asked, data=replace(asked.data, augmentation="none")), tmp_path, progress=False)


def test_what_is_no_image_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    table = DataConfig(name=f"{__name__}:numbers", validation=20, batch_size=10, augmentation="crop_flip")
    asked = comparison("bare", data=table, model=ModelConfig(name="linear"))
    with pytest.raises(ValueError, match=r"'crop_flip' changes images; examples have shape \(5,\)"):
        compare(asked, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def numbers() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(120, 5, generator=generator)
    y = (x[:, 0] > 0).long()
    return (x[:100], y[:100]), (x[100:], y[100:])
