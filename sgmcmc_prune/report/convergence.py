"""How far the chains agree as functions: R-hat and effective sample size of the network's outputs on the probes."""

from typing import TYPE_CHECKING

import numpy as np
import torch

from sgmcmc_prune.convergence import MIN_DRAWS_ESS, ess, moving, rhat
from sgmcmc_prune.report.run_data import RunData, Stage
from sgmcmc_prune.report.style import INK, PALETTE, Picture, legend_below, line, new_figure, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Convergence in function space"
QUANTITIES = {"logits": "posterior", "probability": "posterior_predictive"}
#: Below it Vehtari et al. (2021) let draws be used.
THRESHOLD = 1.01


def convergence(run: RunData) -> Picture:
    """Draw the distribution of R-hat and bulk ESS over all probes and classes."""
    stage = run.dense
    if stage is None or min(stage.draws) < 4:
        return Picture("convergence", TITLE, "R-hat and effective sample size take four draws of every chain.")
    figure = new_figure(7, 3.0)
    axes = figure.subplots(1, 2)
    shades = dict(zip(QUANTITIES, PALETTE, strict=False))
    length = min(stage.draws)
    total = stage.chains * length
    for name, group in QUANTITIES.items():
        draws = _draws(stage, group, name)
        _cumulative(axes[0], rhat(draws).numpy(), shades[name])
        if length >= MIN_DRAWS_ESS:
            _cumulative(axes[1], ess(draws).numpy(), shades[name])
    axes[0].axvline(THRESHOLD, color=INK, linestyle="--", linewidth=1)
    axes[1].axvline(total, color=INK, linestyle=":", linewidth=1)
    tidy(axes[0], "R-hat (rank-normalised, split)", "share of outputs below")
    tidy(axes[1], "bulk effective sample size")
    if stage.chains == 1:
        _instead(axes[0], "one chain: no R-hat")
    if length < MIN_DRAWS_ESS:
        _instead(axes[1], f"{length} draws a chain:\nESS takes {MIN_DRAWS_ESS}")
    looks = [line(name, color=shade) for name, shade in shades.items()]
    marks = [line(f"{THRESHOLD:g}", color=INK, linestyle="--"), line(f"{total} draws", color=INK, linestyle=":")]
    legend_below(figure, [*looks, *marks], 4)
    caption = (
        "Share of the network's outputs (every class on every probe example) whose R-hat, left, or bulk effective "
        f"sample size, right, is below a value. Chains that have converged have R-hat under {THRESHOLD:g} (dashed) "
        "everywhere; single weights are not compared, because hidden units permute between chains. With draws from "
        "several cycles, a large R-hat also means that cycles end in different solutions."
    )
    alt = "Cumulative distributions of R-hat and effective sample size over outputs on the probes."
    return Picture("convergence", TITLE, caption, alt, figure)


def _draws(stage: Stage, group: str, name: str) -> torch.Tensor:
    """Outputs that move, over the draws that all chains have: (chain, draw, output)."""
    length = min(stage.draws)
    values = np.stack([stage.values(group, name, c)[:length] for c in range(stage.chains)])
    draws = torch.from_numpy(values).flatten(2)
    return draws[..., moving(draws)]


def _instead(ax: "Axes", text: str) -> None:
    ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes, fontsize=9)


def _cumulative(ax: "Axes", values: np.ndarray, colour: str) -> None:
    values = np.sort(values[np.isfinite(values)])
    ax.plot(values, np.arange(1, len(values) + 1) / max(1, len(values)), color=colour, lw=1.5)
