"""UCI tables: standardised splits; what is no table of finite numbers is named."""

from pathlib import Path

import pytest
import torch

from sgmcmc_prune.data import uci

FILES = {
    "data": "1 2 3\n4 5 6\n7 8 10\n1 1 1\n",
    "index_features": "0\n1\n",
    "index_target": "2\n",
    "index_train_0": "0\n1\n2\n",
    "index_test_0": "3\n",
}


def write(root: Path, **changes: str) -> Path:
    folder = root / "small" / "data"
    folder.mkdir(parents=True)
    for name, content in (FILES | changes).items():
        (folder / f"{name}.txt").write_text(content)
    return root


def test_a_split_is_standardised_by_its_training_part(tmp_path: Path) -> None:
    split = uci.load(write(tmp_path), "small", 0)
    assert split.train[0].mean(0).abs().max() < 1e-6
    torch.testing.assert_close(split.train[1].std(unbiased=False), torch.tensor(1.0))
    assert split.test[0].shape == (1, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": "1 2 3\n4 nan 6\n7 8 10\n1 1 1\n"}, r"data\.txt: row 1 holds a number that is not finite"),
        ({"data": "1 2 3\n4 ? 6\n7 8 10\n1 1 1\n"}, r"data\.txt is no table of numbers: .*'\?'"),
        ({"data": "1 2 3\n4 5 3\n7 8 3\n1 1 1\n"}, "small, split 0: all training targets are 3"),
        ({"data": "1\n"}, r"index_features\.txt holds an index that is not among 0\.\.0"),
        ({"index_train_0": "0.7\n1\n"}, r"index_train_0\.txt holds an index that is not among 0\.\.3"),
        ({"index_train_0": "-1\n"}, r"index_train_0\.txt holds an index that is not among 0\.\.3"),
        ({"index_test_0": "\n"}, r"index_test_0\.txt is empty"),
    ],
)
def test_other_contents_are_named(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        uci.load(write(tmp_path, **changes), "small", 0)


def test_a_missing_index_is_named(tmp_path: Path) -> None:
    (write(tmp_path) / "small" / "data" / "index_test_0.txt").unlink()
    with pytest.raises(ValueError, match=r"index_test_0\.txt"):
        uci.load(tmp_path, "small", 0)
