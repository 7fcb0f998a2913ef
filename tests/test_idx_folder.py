"""`idx:FOLDER`: images in the format of MNIST, by the names of its four files."""

from pathlib import Path

import pytest
import torch

from sgmcmc_prune.data import fashion_mnist, load
from sgmcmc_prune.data.idx import write_idx
from sgmcmc_prune.data.idx_folder import moments

SUBSET = Path(fashion_mnist.__file__).parent / "fashion_mnist_subset"


def folder(path: Path, form: str = "{}-idx{}-ubyte", images: int = 12, side: int = 4) -> Path:
    """A set of three classes, in files named in one of the ways that copies of MNIST are."""
    path.mkdir(exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    for part, n in (("train", images), ("t10k", 6)):
        pixels = torch.randint(0, 256, (n, side, side), generator=generator).to(torch.uint8)
        write_idx(path / form.format(f"{part}-images", 3), pixels)
        write_idx(path / form.format(f"{part}-labels", 1), (torch.arange(n) % 3).to(torch.uint8))
    return path


@pytest.mark.parametrize("form", ["{}-idx{}-ubyte", "{}-idx{}-ubyte.gz", "{}.idx{}-ubyte"])
def test_a_folder_is_read_whatever_its_files_are_called(form: str, tmp_path: Path) -> None:
    data = load(f"idx:{folder(tmp_path / 'mine', form)}")
    assert (data.name, data.num_classes, len(data.train), len(data.test)) == ("idx:mine", 3, 12, 6)
    inputs = data.train.inputs(data.mean, data.std, "cpu")
    assert inputs.shape == (12, 1, 4, 4)
    assert float(inputs.mean()) == pytest.approx(0, abs=1e-6)
    assert float(inputs.std(correction=0)) == pytest.approx(1, abs=1e-6)
    assert data.origin == {"name": "idx:mine", "official": False}


def test_the_subset_that_ships_is_read_as_by_its_own_name() -> None:
    ours, named = load("idx:fashion_mnist_subset", SUBSET.parent), load("fashion-mnist-subset")
    assert torch.equal(ours.train.images, named.train.images)
    assert torch.equal(ours.test.labels, named.test.labels)
    assert ours.mean[0] == pytest.approx(named.mean[0], abs=0.01)  # its moments are those of the full set


def test_classes_are_the_labels_of_the_training_set_in_order(tmp_path: Path) -> None:
    found = folder(tmp_path / "letters")
    for part, n in (("train", 12), ("t10k", 6)):
        write_idx(found / f"{part}-labels-idx1-ubyte", (10 * (torch.arange(n) % 3) + 1).to(torch.uint8))
    data = load(f"idx:{found}")
    assert (data.num_classes, data.classes) == (3, ("1", "11", "21"))
    assert data.test.labels.tolist() == [0, 1, 2, 0, 1, 2]
    write_idx(found / "t10k-labels-idx1-ubyte", torch.full((6,), 7, dtype=torch.uint8))
    with pytest.raises(ValueError, match="label 7 is in the test set"):
        load(f"idx:{found}")


def test_moments_are_those_of_the_pixels() -> None:
    pixels = torch.randint(0, 256, (5, 7, 7), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    assert moments(pixels)[0] == pytest.approx(float((pixels.double() / 255).mean()), abs=1e-12)
    assert moments(pixels)[1] == pytest.approx(float((pixels.double() / 255).std(correction=0)), abs=1e-12)


def test_what_is_no_such_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    found = folder(tmp_path / "mine")
    with pytest.raises(ValueError, match="holds labels of classes"):
        load(f"idx:{found}", targets="standardised")
    write_idx(found / "t10k-labels-idx1-ubyte", torch.zeros(5, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"\(6, 4, 4\) t10k pixels and 5 labels"):
        load(f"idx:{found}")
    (found / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(ValueError, match="lacks t10k-labels-idx1-ubyte"):
        load(f"idx:{found}")
    black = folder(tmp_path / "black")
    write_idx(black / "train-images-idx3-ubyte", torch.zeros(12, 4, 4, dtype=torch.uint8))
    with pytest.raises(ValueError, match="all pixels"):
        load(f"idx:{black}")
    write_idx(black / "train-images-idx3-ubyte", torch.ones(12, 5, 4, dtype=torch.uint8))
    with pytest.raises(ValueError, match="have size"):
        load(f"idx:{black}")
