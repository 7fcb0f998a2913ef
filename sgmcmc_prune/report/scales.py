"""Axes that are not linear: logarithms with plain numbers, sparsity by what is kept, accuracy by the error."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SPARSITIES = (0.0, 0.3, 0.5, 0.6, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999)
ACCURACIES = (0.1, 0.5, 0.7, 0.8, 0.85, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995)


def log_scale(ax: "Axes") -> None:
    """Make the vertical axis logarithmic, with plain numbers as ticks; call it when everything is drawn."""
    from matplotlib.ticker import FuncFormatter, Locator, LogLocator, MaxNLocator, NullLocator

    ax.set_yscale("log")
    if ax.dataLim.y0 == ax.dataLim.y1:  # a constant has no range of its own
        ax.set_ylim(ax.dataLim.y0 / 2, ax.dataLim.y1 * 2)
    low, high = ax.get_ylim()
    # A narrow range may hold no 1, 2 or 5; over two decades they crowd.
    locator: Locator = LogLocator(subs=(1,) if high > 100 * low else (1, 2, 5))
    ax.yaxis.set_major_locator(locator if high > 5 * low else MaxNLocator(5, steps=[1, 2, 5, 10]))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_locator(NullLocator())


def sparsity_axis(ax: "Axes") -> None:
    """Label the axis of the kept share by sparsity, rising to the right."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    ax.set_xscale("log")
    lowest, highest = sorted(ax.get_xlim())
    ticks = [t for t in SPARSITIES if lowest <= 1 - t <= highest]
    ax.xaxis.set_major_locator(FixedLocator([1 - t for t in ticks]))
    ax.xaxis.set_major_formatter(FixedFormatter([f"{100 * t:g}%" for t in ticks]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlim(highest, lowest)


def accuracy_axis(ax: "Axes") -> None:
    """Scale accuracy by the logarithm of the error, so that the better of two good methods is seen to be better."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

    limits = [shared.dataLim for shared in ax.get_shared_y_axes().get_siblings(ax)]
    low, high = min(limit.y0 for limit in limits), max(limit.y1 for limit in limits)

    def stretch(accuracy: np.ndarray) -> np.ndarray:
        return -np.log10(np.maximum(1 - np.asarray(accuracy), 1e-4))

    def shrink(value: np.ndarray) -> np.ndarray:
        return 1 - 10.0 ** -np.asarray(value)

    ax.set_yscale("function", functions=(stretch, shrink))
    margin = max(0.01, 0.08 * float(stretch(high) - stretch(low)))
    low, high = float(shrink(stretch(low) - margin)), float(shrink(stretch(high) + margin))
    ax.set_ylim(low, high)
    few = sum(low <= tick <= high for tick in ACCURACIES) < 3
    ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]) if few else FixedLocator(ACCURACIES))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_locator(NullLocator())
