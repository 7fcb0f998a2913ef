"""Damage to any file of a finished run: every command gives the same result as before, or one line that names it."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from small_run import small

from sgmcmc_prune import cli
from sgmcmc_prune.run.main import run
from sgmcmc_prune.settings import replace

Damage = Callable[[bytes], bytes]
DAMAGES: dict[str, Damage] = {
    "flipped": lambda raw: raw[: len(raw) // 2] + bytes([raw[len(raw) // 2] ^ 0x40]) + raw[len(raw) // 2 + 1 :],
    "truncated": lambda raw: raw[: 2 * len(raw) // 3],
    "empty": lambda raw: b"",
}
#: What reads a file: the first name in its path that is listed says which command.
READERS = {
    "config.json": "resume",
    "metrics.json": "report",
    "run.json": "resume",
    "reliability.json": "report",
    "averages": "resume",
    "inclusion": "report",
    "draws": "resume",
    "masks": "resume",
    "posterior.zarr": "summary",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that kept its draws: one chain, one fork."""
    out = tmp_path_factory.mktemp("damage") / "run"
    config = small(
        **{
            "chains": 1,
            "prune.in_chain": ("magnitude",),
            "prune.post_hoc": ("inclusion_probability",),
            "prune.targets": (0.5,),
            "schedule.burn_in": 1.0,
            "schedule.draws": 5,
            "keep_weight_draws": True,
        }
    )
    run(config, out, progress=False)
    return out


def files(out: Path) -> Iterator[Path]:
    """One file of each kind; of the store the metadata, and a chunk that every summary reads."""
    seen = set()
    for path in sorted(p for p in out.rglob("*") if p.is_file() and p.name != ".lock"):
        relative = path.relative_to(out)
        kind = next((name for name in READERS if name in relative.parts), None)
        if kind == "posterior.zarr" and relative.parts[0] == kind:
            if relative.parts[1:] == ("zarr.json",) or relative.parts[1:3] == ("posterior", "weight_norm"):
                yield relative
        elif ((kind and "forks" not in relative.parts) or kind == "masks") and kind not in seen:
            seen.add(kind)
            yield relative


def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and the last line of standard error."""
    capsys.readouterr()
    try:
        cli.main(list(arguments))
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    found = capsys.readouterr()
    return code, found.out, found.err.strip().splitlines()[-1] if found.err.strip() else ""


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named_or_changes_nothing(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    before = json.loads((finished / "metrics.json").read_text())
    tables = {what: command(capsys, what, str(finished))[1] for what in ("summary",)}
    tried = list(files(finished))
    assert {next(n for n in READERS if n in p.parts) for p in tried} == set(READERS)
    for relative in tried:
        copy = tmp_path / "copy"
        shutil.copytree(finished, copy)
        raw = (copy / relative).read_bytes()
        (copy / relative).write_bytes(DAMAGES[damage](raw))
        what = READERS[next(n for n in READERS if n in relative.parts)]
        code, out, line = command(capsys, what, str(copy))
        if code:
            named = [str(place) for place in (relative, *relative.parents) if place.name]
            assert code == 2, (relative, what, line)
            assert any(f"{copy}/{name}" in line for name in named), (relative, what, line)
        elif what == "summary":
            assert out == tables[what], relative
        else:
            assert json.loads((copy / "metrics.json").read_text()) == before, relative
        if relative.name != "metrics.json":
            assert json.loads((copy / "metrics.json").read_text()) == before, "nothing computed is lost"
        shutil.rmtree(copy)


def test_a_finished_run_keeps_averages_and_no_checkpoints(finished: Path) -> None:
    assert not list(finished.rglob("checkpoints/*.safetensors*"))
    assert [p.name for p in (finished / "averages").iterdir()] == ["chain0.safetensors"]


@pytest.mark.parametrize("what", ["resume", "report", "export"])
def test_an_edited_configuration_is_refused_with_both_values(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    config = json.loads((copy / "config.json").read_text())
    config["sampler"]["temperature"] = 0.25
    (copy / "config.json").write_text(json.dumps(config))
    more = [str(tmp_path / "net.safetensors")] if what == "export" else []
    code, _, line = command(capsys, what, str(copy), *more)
    assert code == 2
    assert "sampler.temperature is 0.25, and was 1.0" in line


def test_settings_that_do_not_touch_the_draws_may_be_edited(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    config = json.loads((copy / "config.json").read_text())
    config |= {"checkpoint_seconds": 99.0, "execution": "processes"}
    (copy / "config.json").write_text(json.dumps(config))
    assert command(capsys, "resume", str(copy))[0] == 0


@pytest.mark.parametrize("content", ["", "[" * 100_000, "\x00", '{"seed": 1e400}', "null", "[1, 2]", '{"seed": "0"}'])
@pytest.mark.parametrize("what", ["resume", "report", "summary"])
def test_a_strange_configuration_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, what: str
) -> None:
    (tmp_path / "config.json").write_text(content)
    code, _, line = command(capsys, what, str(tmp_path))
    assert code == 2
    assert line.startswith("sgmcmc-prune: ")
    assert "config" in line or "not a run directory" in line


def test_a_damaged_draw_is_drawn_again_from_the_checkpoint_before(tmp_path: Path) -> None:
    """A kill leaves two checkpoints; a draw that was damaged since the older one is drawn again, to the bit."""
    from sgmcmc_prune.run import stages
    from sgmcmc_prune.run.run import Run
    from sgmcmc_prune.store import checkpoint
    from sgmcmc_prune.store.weights import WeightStore

    config = small(**{"chains": 1, "prune.in_chain": (), "prune.post_hoc": (), "checkpoint_seconds": 1e9})
    data = Run(config).data

    class Silent:
        disable, written = True, ""

        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *args, **kwargs: None

        def write(self, line: str) -> None:
            self.written += line

    for name in ("whole", "damaged"):
        stages.open_stage(Run(config, tmp_path / name, data), None)
        stages.take_chain(Run(config, tmp_path / name, data), 0, Silent())
    kept = checkpoint.history(tmp_path / "damaged" / "checkpoints" / "chain0.safetensors")
    assert len(kept) == 2
    old = checkpoint.load(kept[1])["draws"]
    draws = WeightStore(tmp_path / "damaged" / "draws")
    path = draws._file(0, old)
    path.write_bytes(DAMAGES["flipped"](path.read_bytes()))
    bar = Silent()
    stages.take_chain(Run(config, tmp_path / "damaged", data), 0, bar)
    assert "drawn again" in bar.written
    again, whole = draws.load(0, old), WeightStore(tmp_path / "whole" / "draws").load(0, old)
    assert all(bool((again[name] == whole[name]).all()) for name in whole)
    first = draws._file(0, 0)
    first.write_bytes(DAMAGES["truncated"](first.read_bytes()))
    with pytest.raises(ValueError, match=r"chain0-00000.safetensors .*no checkpoint is from before it"):
        stages.take_chain(Run(config, tmp_path / "damaged", data), 0, Silent())


def test_a_refused_run_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cycles"):
        run(replace(small(), **{"schedule.cycles": 0, "prune.post_hoc": ()}), tmp_path / "new", progress=False)
    assert not (tmp_path / "new").exists()


def test_a_file_where_a_directory_should_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="is a file; choose another --out"):
        run(small(), tmp_path / "file", progress=False)


def test_overwrite_deletes_no_foreign_directory(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match="is not a run directory, so --overwrite will not delete it"):
        run(small(), tmp_path, overwrite=True, progress=False)
    assert (tmp_path / "thesis.tex").read_text() == "mine"
