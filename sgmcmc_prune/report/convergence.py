"""How far the chains agree as functions: R-hat and effective sample size of the network's outputs on the probes."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sgmcmc_prune.diagnostics import MIN_DRAWS_ESS, ess, moving, rhat
from sgmcmc_prune.diagnostics.inference_data import MIN_DRAWS, RHAT_THRESHOLD
from sgmcmc_prune.diagnostics.of_run import FUNCTIONS
from sgmcmc_prune.report.run_data import RunData, Stage
from sgmcmc_prune.report.style import INK, PALETTE, Picture, legend_below, line, new_figure, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Convergence in function space"


def convergence(run: RunData) -> Picture:
    """Draw the distributions of R-hat and bulk ESS over all outputs on the probes, those of the two that there are."""
    stage = run.dense
    if stage is None or min(stage.draws) < MIN_DRAWS:
        return Picture("convergence", TITLE, f"R-hat and effective sample size take {MIN_DRAWS} draws of every chain.")
    length, panels, sentences = min(stage.draws), [], []
    if stage.chains > 1:
        panels.append(_rhat)
        sentences.append(f"Chains that have converged have R-hat under {RHAT_THRESHOLD:g} (dashed) everywhere.")
    else:
        sentences.append("There is no R-hat, which takes two chains.")
    if length >= MIN_DRAWS_ESS:
        panels.append(_ess)
        sentences.append("Independent draws have an effective sample size near their number (dotted).")
    else:
        sentences.append(f"There is no effective sample size: it takes {MIN_DRAWS_ESS} draws a chain, not {length}.")
    if not panels:
        return Picture("convergence", TITLE, " ".join(sentences))
    figure = new_figure(0.5 + 3.3 * len(panels), 3.0)
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    marks = [draw(ax, stage) for draw, ax in zip(panels, axes, strict=True)]
    axes[0].set_ylabel("share of outputs below", fontsize=9)
    shades = dict(zip(_quantities(stage), PALETTE, strict=False))
    legend_below(figure, [*(line(name, color=shade) for name, shade in shades.items()), *marks], 4)
    caption = (
        "Share of the network's outputs (every one on every probe example) for which a diagnostic is below a value. "
        f"{' '.join(sentences)} Single weights are not compared, because hidden units permute between chains. With "
        "draws from several cycles, a large R-hat also means that cycles end in different solutions."
    )
    alt = "Cumulative distributions of R-hat and effective sample size over outputs on the probes."
    return Picture("convergence", TITLE, caption, alt, figure)


def _rhat(ax: "Axes", stage: Stage) -> Any:
    _distribution(ax, stage, rhat)
    tidy(ax, "R-hat (rank-normalised, split)")
    return _mark(ax, RHAT_THRESHOLD, f"{RHAT_THRESHOLD:g}", "--")


def _ess(ax: "Axes", stage: Stage) -> Any:
    _distribution(ax, stage, ess)
    tidy(ax, "bulk effective sample size")
    total = stage.chains * min(stage.draws)
    return _mark(ax, total, f"{total} draws", ":")


def _distribution(ax: "Axes", stage: Stage, diagnostic: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Draw the share of outputs below each value of a diagnostic."""
    for name, shade in zip(_quantities(stage), PALETTE, strict=False):
        values = diagnostic(_draws(stage, FUNCTIONS[name], name)).numpy()
        values = np.sort(values[np.isfinite(values)])
        ax.plot(values, np.arange(1, len(values) + 1) / max(1, len(values)), color=shade, lw=1.5)


def _quantities(stage: Stage) -> list[str]:
    """What the store holds of the network's outputs."""
    return [name for name, group in FUNCTIONS.items() if name in stage.tree[group]]


def _mark(ax: "Axes", value: float, label: str, linestyle: str) -> Any:
    """Draw a vertical line and return its legend entry."""
    ax.axvline(value, color=INK, linestyle=linestyle, linewidth=1)
    return line(label, color=INK, linestyle=linestyle, linewidth=1)


def _draws(stage: Stage, group: str, name: str) -> torch.Tensor:
    """Outputs that move, over the draws that all chains have: (chain, draw, output)."""
    length = min(stage.draws)
    values = np.stack([stage.values(group, name, c)[:length] for c in range(stage.chains)])
    draws = torch.from_numpy(values).flatten(2)
    return draws[..., moving(draws)]
