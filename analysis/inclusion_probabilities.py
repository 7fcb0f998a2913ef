"""Inclusion probabilities of a run: histograms per layer, and where the first layer keeps its inputs.

    python analysis/inclusion_probabilities.py runs/demo-seed0 --out inclusion.png

A convolution shows its filters, one row per chain; a linear layer on images shows every pixel's mean over the units.
"""

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from sgmcmc_prune.report.inclusion import COLUMNS, draw_histograms, quantity
from sgmcmc_prune.report.run_data import Inclusion, RunData
from sgmcmc_prune.report.style import new_figure, png

MAX_FILTERS = 12


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the figure; return 0, or 2 after one line about what is wrong with the input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory")
    parser.add_argument("--out", required=True, type=Path, help="the picture (PNG)")
    options = parser.parse_args(argv)
    try:
        options.out.write_bytes(png(draw(RunData.open(options.run))))
    except (ValueError, OSError) as error:
        print(f"inclusion_probabilities: {error}", file=sys.stderr)
        return 2
    print(options.out)
    return 0


def draw(run: RunData) -> Any:
    """Draw histograms above, the first layer below.

    Raises
    ------
    ValueError
        If the run has no inclusion probabilities (yet).
    """
    found = run.inclusion()
    if not found:
        raise ValueError(f"{run.path} has no inclusion probabilities: its prior has none, or no draw was saved yet")
    rows = math.ceil(len(next(iter(found.values()))) / COLUMNS)
    heights = (1.0 + 1.8 * rows, 0.6 + 1.0 * len(found))
    figure = new_figure(7, sum(heights))
    above, below = figure.subfigures(2, 1, height_ratios=heights)
    draw_histograms(above, run, found)
    draw_first_layer(below, run, found)
    return figure


def draw_first_layer(figure: Any, run: RunData, found: Mapping[int, Inclusion]) -> None:
    """Draw the first layer's inclusion as images, one row per chain."""
    name = next(iter(next(iter(found.values()))))
    shape = tuple(int(n) for n in run.stages[0].tree["constant_data"]["image"].shape[1:])
    images = {c: first_layer(run.groups(c)[name].expand(p[name]), shape)[:MAX_FILTERS] for c, p in found.items()}
    axes = figure.subplots(len(images), max(map(len, images.values())), squeeze=False)
    for (chain, pictures), row in zip(images.items(), axes, strict=True):
        for ax, picture in zip(row, pictures, strict=True):
            shown = ax.imshow(picture, cmap="cividis", vmin=0, vmax=1)
            ax.set_xticks([])
            ax.set_yticks([])
        row[0].set_ylabel(f"chain {chain}", fontsize=9)
    bar = figure.colorbar(shown, ax=axes, shrink=0.8)
    bar.ax.tick_params(labelsize=8)
    what = "filters" if len(axes[0]) > 1 else "inputs, mean over units"
    figure.suptitle(f"{name.removesuffix('.weight')} ({what}): {quantity(run.config)}", fontsize=10)


def first_layer(inclusion: Tensor, input_shape: tuple[int, ...]) -> list[np.ndarray]:
    """Turn a weight-shaped tensor into images: one per filter, or one of all inputs."""
    values = inclusion.numpy()
    if values.ndim == 4:
        return list(values.mean(1))
    inputs = values.mean(0)
    if math.prod(input_shape) == inputs.size and len(input_shape) == 3:
        return [inputs.reshape(input_shape).mean(0)]
    return [inputs[None]]


if __name__ == "__main__":
    sys.exit(main())
