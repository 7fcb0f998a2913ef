"""Data of the variational experiments: simulated designs, and the reader of the UCI splits."""

from pathlib import Path

import pytest
import torch

from sgmcmc_prune.data import uci
from sgmcmc_prune.data.selection import SUPPORT, TEACHER_NOISE, features, teacher


def test_teacher_is_scaled_and_seeded() -> None:
    inputs, targets, noise = teacher(20_000, 0)
    assert noise == TEACHER_NOISE
    assert float(targets.std()) == pytest.approx((1 + noise**2) ** 0.5, rel=0.02)
    assert float(inputs.abs().max()) <= 1
    again, other = teacher(20_000, 0), teacher(20_000, 0, "test")
    assert torch.equal(targets, again[1])
    assert not torch.equal(inputs, other[0])
    with pytest.raises(ValueError, match="num_data is 1"):
        teacher(1, 0)


def test_features_depend_on_the_support_alone() -> None:
    inputs, targets = features(20_000, 8, 1)
    x = inputs
    signal = 7 * x[:, 1] / (1 + x[:, 0] ** 2) + 5 * torch.sin(x[:, 2] * x[:, 3]) + 2 * x[:, 4]
    assert SUPPORT == (0, 1, 2, 3, 4)
    # The variance of 20,000 standard normals is 1 +- 0.01.
    assert float((targets - signal).var()) == pytest.approx(1, abs=0.05)
    with pytest.raises(ValueError, match="num_features 4"):
        features(10, 4, 0)


@pytest.fixture
def uci_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "UCI_Datasets" / "toy" / "data"
    folder.mkdir(parents=True)
    (folder / "data.txt").write_text("".join(f"{i} {i * i} 7 {3 * i + 1}\n" for i in range(10)))
    files = {
        "features": "0\n1\n2\n",
        "target": "3\n",
        "train_0": "".join(f"{i}\n" for i in range(8)),
        "test_0": "8\n9\n",
    }
    for key, text in files.items():
        (folder / f"index_{key}.txt").write_text(text)
    return tmp_path


def test_uci_split_is_standardised_by_its_training_set(uci_folder: Path) -> None:
    split = uci.load(uci_folder, "toy", 0)
    assert uci.names(uci_folder) == ["toy"]
    inputs, targets = split.train
    assert inputs.shape == (8, 3)
    assert torch.allclose(inputs.mean(0), torch.zeros(3), atol=1e-6)
    assert inputs.std(0, correction=0).tolist() == pytest.approx([1, 1, 0])
    assert float(targets.std(correction=0)) == pytest.approx(1)
    # In original units the test targets are 25 and 28; the training mean is 11.5.
    assert (split.test[1] * split.target_std + 11.5).tolist() == pytest.approx([25, 28], rel=1e-5)


def test_uci_bad_input(uci_folder: Path) -> None:
    with pytest.raises(ValueError, match="no data set 'boston'; it has toy"):
        uci.load(uci_folder, "boston", 0)
    with pytest.raises(ValueError, match="no split 3; choose 0 to 0"):
        uci.load(uci_folder, "toy", 3)
    (uci_folder / "UCI_Datasets/toy/data/index_test_0.txt").write_text("10\n")
    with pytest.raises(ValueError, match=r"an index that is not among 0\.\.9"):
        uci.load(uci_folder, "toy", 0)
