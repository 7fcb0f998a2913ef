"""Cells: what is finished is kept and not computed again; failures and signals take nothing away from the others."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from sgmcmc_prune import cells
from sgmcmc_prune.cells import Cell, Files, Record, Records, complete, interruption_in_words, missing, product
from sgmcmc_prune.errors import Interrupted, RunError
from sgmcmc_prune.machine.progress import Silent, tell
from sgmcmc_prune.store.claims import Claims
from sgmcmc_prune.store.files import read_json, write_json


def invert(value: int, folder: str) -> list[Record]:
    """A cell that warns, and fails at zero until its folder holds a word."""
    (Path(folder) / f"begun{time.monotonic_ns()}").touch()
    if value == -1:
        raise ValueError("value is -1; give another")
    if value == 0 and not (Path(folder) / "mended").exists():
        raise ZeroDivisionError
    warnings.warn("inverted", stacklevel=1)
    return [{"value": value, "inverse": 1 / (value or float("inf")), "threads": os.environ["OMP_NUM_THREADS"]}]


def stubborn(seconds: float, folder: str) -> Record:
    """A cell that is told to stop, and finishes or sleeps on."""
    if seconds < 9:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (Path(folder) / f"begun{seconds}").touch()
    time.sleep(seconds)
    return {"slept": True}


def telling(seed: int, folder: str) -> Record:
    """A cell that says where it is."""
    tell(f"half way in {folder}")
    return {"done": True}


def test_what_a_cell_tells_stands_in_the_bar_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    class Bar(Silent):
        def set_postfix_str(self, s: str = "", refresh: bool = True) -> None:
            said.append(s)

    monkeypatch.setattr(cells, "progress_bar", lambda *given, **options: Bar())
    grid = Files(
        product(telling, {"seed": [0]}, places={"folder": "it"}), lambda cell: tmp_path / "0.json", tmp_path / "c"
    )
    complete(grid, threads=1)
    assert "seed 0: half way in it" in said


def test_cells_are_named_by_their_values() -> None:
    cells = product(invert, {"method": ["rigl", "snip"], "seed": range(2)}, {"steps": 3}, {"device": "cpu"})
    assert [cell.name for cell in cells] == ["rigl, seed 0", "rigl, seed 1", "snip, seed 0", "snip, seed 1"]
    assert cells[1] == Cell("rigl, seed 1", invert, {"method": "rigl", "seed": 1, "steps": 3}, {"device": "cpu"})


def test_a_cell_that_fails_ends_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = product(invert, {"value": [0, -1, 2]}, places={"folder": str(tmp_path)})
    grid = Files(cells, lambda cell: tmp_path / "cells" / f"{cell.settings['value']}.json", tmp_path / "claims")
    with pytest.raises(
        RunError, match=r"^2 of 3 cells failed, the others are finished: .*-1: value is -1; give"
    ) as told:
        complete(grid, jobs=2, threads=1, progress=False, show=lambda cell, rows: f"{cell.name}: {rows[0]['inverse']}")
    assert "value 0: ZeroDivisionError" in str(told.value)
    said = capsys.readouterr().out
    assert "value 2: inverted\n" in said
    assert "value 2: 0.5\n" in said
    assert "Traceback" in said
    assert missing(grid) == "2 of 3 cells are missing: value 0; value -1"
    (tmp_path / "mended").touch()
    again = Files([cells[0], cells[2]], grid.path, grid.claims)
    assert complete(again, progress=False, threads=1) == [
        [{"value": value, "inverse": inverse, "threads": "1"}] for value, inverse in ((0, 0.0), (2, 0.5))
    ]
    assert len(list(tmp_path.glob("begun*"))) == 4, "a finished cell is not computed again"
    assert missing(again) == ""


def test_a_file_of_other_settings_is_refused(tmp_path: Path) -> None:
    (cell,) = product(invert, {"seed": [0]}, {"split": "test", "unsaid": 1})
    write_json(tmp_path / "metrics.json", {"split": "validation", "seed": 0})
    claims = tmp_path / "claims"
    with pytest.raises(ValueError, match=r"metrics.json is of a cell with other split \(validation\); choose another"):
        complete(Files([cell], lambda cell: tmp_path / "metrics.json", claims), progress=False)
    lambdas = product(lambda seed: seed, {"seed": [0]})
    with pytest.raises(ValueError, match=r"no other process finds .*<lambda>; move it to a module"):
        complete(Files(lambdas, lambda cell: tmp_path / "none", claims), progress=False)
    with pytest.raises(ValueError, match="jobs is 0; it must be at least 1"):
        complete(Files([], lambda cell: tmp_path, claims), jobs=0)


def test_records_stand_in_the_order_of_their_cells(tmp_path: Path) -> None:
    """Those of other settings stay, also what another command adds meanwhile, and results that are no numbers."""
    cells, path = product(invert, {"seed": range(3)}, {"steps": 10}), tmp_path / "deeper" / "results.json"
    grid = Records(cells, path)
    grid.keep(cells[2], {"score": 2.0})
    (other,) = product(invert, {"seed": [0]}, {"steps": 20})
    Records([other], path).keep(other, {"score": 9.0})
    grid.keep(cells[0], {"score": 1.0})
    expected = [(0, 20, 9.0), (0, 10, 1.0), (2, 10, 2.0)]
    assert [(r["seed"], r["steps"], r["score"]) for r in read_json(path)["runs"]] == expected
    assert grid.find(cells[1]) is None
    assert Records(cells, path).find(cells[2]) == {"seed": 2, "steps": 10, "score": 2.0}


def test_records_of_a_file_that_was_removed_meanwhile_are_written_again(tmp_path: Path) -> None:
    cells = product(invert, {"value": [1, 2]})
    grid = Records(cells, tmp_path / "results.json")
    write_json(grid.path, {"runs": [{"value": 7, "inverse": 1 / 7}]})
    grid.keep(cells[1], {"inverse": 0.5})
    grid.path.unlink()
    grid.keep(cells[0], {"inverse": 1.0})
    assert [record["value"] for record in grid.all] == [7, 1, 2]


def test_after_a_signal_finished_cells_are_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One of the two cells finishes although it was told to stop; the third never starts."""
    cells = product(stubborn, {"seconds": [2.0, 60.0, 61.0]}, places={"folder": str(tmp_path)})
    grid = Records(cells, tmp_path / "results.json")

    def terminate() -> None:
        while len(list(tmp_path.glob("begun*"))) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    killer = threading.Thread(target=terminate)
    killer.start()
    with pytest.raises(SystemExit) as stopped, interruption_in_words():
        complete(grid, jobs=2, progress=False)
    killer.join()
    assert stopped.value.code == 143
    assert "Go on with the same command" in capsys.readouterr().out
    assert read_json(grid.path)["runs"] == [{"seconds": 2.0, "slept": True}]
    assert not (tmp_path / "begun61.0").exists()


def test_an_interrupted_cell_interrupts(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: Any) -> None:
        raise Interrupted(signal.SIGINT)

    monkeypatch.setattr("sgmcmc_prune.cells.run_workers", interrupted)
    with pytest.raises(SystemExit) as stopped, interruption_in_words():
        complete(Files([], lambda cell: Path(), Path()), progress=False)
    assert stopped.value.code == 130


def sees(seed: int, folder: str) -> Record:
    """A cell that says which GPU it sees, when another has begun, too."""
    (Path(folder) / f"begun{seed}").touch()
    while len(list(Path(folder).glob("begun*"))) < 2:
        time.sleep(0.02)
    return {"gpu": os.environ.get("CUDA_VISIBLE_DEVICES")}


@pytest.mark.parametrize(("device", "seen"), [("cuda", {"3", "GPU-5"}), ("cuda:1", {"3,GPU-5"}), ("cpu", {"3,GPU-5"})])
def test_cells_that_run_at_once_see_a_gpu_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, seen: set[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5")
    cells = product(sees, {"seed": range(2)}, places={"folder": str(tmp_path)})
    found = complete(Records(cells, tmp_path / "found.json"), jobs=2, threads=1, progress=False, device=device)
    assert {record["gpu"] for record in found} == seen


def begun_once(value: int, folder: str) -> Record:
    """A cell that says that it began, and takes its time."""
    with (Path(folder) / "begun").open("a") as file:
        file.write(f"{value}\n")
    time.sleep(0.2)
    return {"square": value**2}


def shared_grid(folder: Path, kind: str, values: Iterable[int]) -> Files | Records:
    """Cells that several processes compute, whose results have a file each or one for all."""
    cells = product(begun_once, {"value": values}, places={"folder": str(folder)})
    if kind == "records":
        return Records(cells, folder / "results.json")
    return Files(cells, lambda cell: folder / f"{cell.settings['value']}.json", folder / "claims")


def in_another_process(folder: Path, kind: str, values: list[int]) -> "subprocess.Popen[bytes]":
    """Complete the shared grid there, from this folder of tests."""
    code = (
        f"import test_cells as t; from pathlib import Path; "
        f"t.complete(t.shared_grid(Path({str(folder)!r}), {kind!r}, {values}), jobs=2, threads=1, progress=False)"
    )
    return subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parent)


@pytest.mark.parametrize("kind", ["files", "records"])
def test_two_processes_complete_one_grid_together(tmp_path: Path, kind: str) -> None:
    """Each cell is computed by one of them, and both end with all results; they begin at other ends of the grid."""
    values = list(range(4))
    other = in_another_process(tmp_path, kind, values[::-1])
    found = complete(shared_grid(tmp_path, kind, values), jobs=2, threads=1, progress=False)
    assert other.wait() == 0
    assert [result["square"] for result in found] == [value**2 for value in values]
    assert sorted((tmp_path / "begun").read_text().split()) == [str(value) for value in values]
    assert missing(shared_grid(tmp_path, kind, values)) == ""


def test_what_a_killed_process_had_begun_is_computed_by_another(tmp_path: Path) -> None:
    code = (
        f"import time; from pathlib import Path; from sgmcmc_prune.store.claims import Claims; "
        f"c = Claims(Path({str(tmp_path / 'claims')!r})); print(c.take('value 3'), flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"True\n"
    assert not Claims(tmp_path / "claims").take("value 3")

    def kill() -> None:
        while not (tmp_path / "4.json").exists():
            time.sleep(0.01)
        holder.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    found = complete(shared_grid(tmp_path, "files", [3, 4]), jobs=1, threads=1, progress=False)
    killer.join()
    holder.wait()
    holder.stdout.close()
    assert [result["square"] for result in found] == [9, 16]
    assert (tmp_path / "begun").read_text().split() == ["4", "3"]


def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.lockf", refused)
    with pytest.raises(ValueError, match=r"claims: its file system offers no locks \(No locks available\); choose"):
        Claims(tmp_path / "claims").take("cell")


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    grid = Records(product(begun_once, {"value": [1]}, places={"folder": str(tmp_path)}), tmp_path / "file" / "r.json")
    with pytest.raises(ValueError, match=r"r.json.claims cannot be written \((Not a directory|File exists)\); choose"):
        complete(grid, progress=False, threads=1)


def odd(value: int, pair: list[int], folder: str) -> Record:
    """A cell with a result that is no number, and settings that JSON gives back in another form."""
    (Path(folder) / f"begun{time.monotonic_ns()}").touch()
    if value == 2:
        (Path(folder) / "r.json").write_text('{"runs": [')
    return {"r": float("nan")}


def test_results_that_are_no_number_and_tuples_are_kept(tmp_path: Path) -> None:
    cells = product(odd, {"value": [1]}, {"pair": (1, 2)}, {"folder": str(tmp_path)})
    for _ in range(2):
        complete(Records(cells, tmp_path / "r.json"), progress=False, threads=1)
    assert read_json(tmp_path / "r.json")["runs"] == [{"value": 1, "pair": [1, 2], "r": None}]
    assert len(list(tmp_path.glob("begun*"))) == 1


def test_a_result_whose_file_was_damaged_meanwhile_goes_beside_it(tmp_path: Path) -> None:
    cells = product(odd, {"value": [2]}, {"pair": (1, 2)}, {"folder": str(tmp_path)})
    with pytest.raises(RunError, match=r"its result is in .*value 2.not-kept.json"):
        complete(Records(cells, tmp_path / "r.json"), progress=False, threads=1)
    assert read_json(tmp_path / "value 2.not-kept.json")["result"] == {"r": None}
