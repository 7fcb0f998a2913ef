"""Draw everything a run directory can show, and write it to RUN/report/.

A picture that cannot be drawn does not end the page: what failed stands in its place, and on standard error.
"""

import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from sgmcmc_prune.report.calibration import reliability_diagram
from sgmcmc_prune.report.convergence import convergence
from sgmcmc_prune.report.inclusion import inclusion_histograms
from sgmcmc_prune.report.page import failed, page
from sgmcmc_prune.report.probes import probe_trace, weight_norms
from sgmcmc_prune.report.run_data import RunData
from sgmcmc_prune.report.sparsity import quality_against_sparsity
from sgmcmc_prune.report.style import Picture, png
from sgmcmc_prune.report.temperature import temperatures
from sgmcmc_prune.report.training import hyperparameter_trace, training_trace
from sgmcmc_prune.store.damage import damage_named
from sgmcmc_prune.store.files import atomic_path
from sgmcmc_prune.store.places import RunPlaces
from sgmcmc_prune.store.tensor_file import Damaged

#: In the order of the page.
PICTURES: tuple[Callable[[RunData], Picture], ...] = (
    quality_against_sparsity,
    inclusion_histograms,
    reliability_diagram,
    training_trace,
    hyperparameter_trace,
    temperatures,
    convergence,
    probe_trace,
    weight_norms,
)


def write_report(run_dir: Path) -> Path:
    """Write RUN/report/*.png and a self-contained RUN/report/index.html.

    Parameters
    ----------
    run_dir : Path
        A run directory; the run may be unfinished.

    Returns
    -------
    Path
        The HTML page.

    Raises
    ------
    ValueError
        If `run_dir` is not a run directory.
    """
    run = RunData.open(Path(run_dir))
    out = RunPlaces(run.path).report
    out.mkdir(exist_ok=True)
    drawn = []
    for draw in PICTURES:
        try:
            picture = _drawn(draw, run)
            image = png(picture.figure) if picture.figure is not None else None
        except Damaged:
            raise
        except Exception as error:  # whatever it is: the other pictures are worth having
            name = draw.__name__
            picture, image = Picture(name, name.replace("_", " ").capitalize(), failed(error)), None
            print(f"{name}: {picture.caption}", file=sys.stderr)
        if image is not None:
            _write(out / f"{picture.name}.png", image)
        drawn.append((picture, image))
    index = out / "index.html"
    _write(index, page(run, drawn).encode())
    return index


def _drawn(draw: Callable[[RunData], Picture], run: RunData) -> Picture:
    """A picture of the run; an error that damage in a store caused names its place."""
    with ExitStack() as named:
        for stage in run.stages:
            named.enter_context(damage_named(stage.path))
        return draw(run)


def require_page(path: Path) -> Path:
    """A path that a page can have, its user's home expanded; ValueError if its ending is another than .html."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"{path}: a report is a page; name it {path.name}.html")
    return path.expanduser()


def _write(path: Path, content: bytes) -> None:
    with atomic_path(path) as partial:
        partial.write_bytes(content)
