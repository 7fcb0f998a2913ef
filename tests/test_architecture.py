"""The map of the house: the files that it names are there, and its table of folders is in the order of the arrows."""

import configparser
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MAP = (ROOT / "docs" / "architecture.md").read_text()


def test_every_file_that_is_named_is_there() -> None:
    named = set(re.findall(r"`([a-z_/]+\.py)`", MAP))
    assert len(named) > 30
    assert {name for name in named if not any((ROOT / part / name).is_file() for part in ("", "sgmcmc_prune"))} == set()


def test_the_table_of_folders_is_that_of_the_contract() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    layers = setup["importlinter:contract:layers"]["layers"].split("\n")
    rank = {name.strip(): i for i, layer in enumerate(layers) for name in layer.split("|")}
    rows = re.findall(r"^\| ((?:`[a-z_]+(?:/|\.py)`(?:, )?)+) \|", MAP, re.MULTILINE)
    folders = [name.removesuffix(".py").strip("/") for row in rows for name in re.findall(r"`(.*?)`", row)]
    assert sorted(folders) == sorted(rank.keys() - {"", "__main__"})
    assert [rank[name] for name in folders] == sorted(rank[name] for name in folders)
