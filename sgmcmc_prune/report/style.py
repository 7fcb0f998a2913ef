"""How every picture looks: a colour-blind-safe palette and quiet axes; matplotlib's global state is left alone."""

import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

from sgmcmc_prune import choices

#: Okabe and Ito's colours, told apart with every common colour vision.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F6000")
DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (4, 1, 1, 1)))
#: For criteria of a user's own.
OWN = ("#882255", "#117733", "#332288", "#AA4499", "#999933")
INK = "#333333"
CRITERIA = (
    "inclusion_probability",
    "magnitude",
    "random",
    "signal_to_noise",
    "em_responsibility",
    "expected_log_odds",
    "root_mean_square",
)
#: A comparison has more methods than colours: a family has one, by which it is known in every picture, ...
FAMILIES = dict(
    zip(
        ("sgmcmc", "point estimate", "laplace", "model reduction", "mixture prior", "variational", "one shot"),
        PALETTE,
        strict=True,
    )
)
#: ... but for the methods that remove whole units, which are few and of one family.
UNITS = {
    "filter-norm": PALETTE[1],
    "filter-random": PALETTE[2],
    "filter-conditional": PALETTE[3],
    "filter-taylor": PALETTE[4],
    "dense": INK,
}


@dataclass(frozen=True)
class Picture:
    """A figure and what a reader is told about it.

    Parameters
    ----------
    name : str
        File name without its ending.
    title, caption : str
        The caption says how to read it, or, without a figure, why there is none.
    alt : str
        The picture in words, for those who do not see it.
    figure : Figure or None
    marks : sequence of Mark
        What is told where the figure is pointed at.
    """

    name: str
    title: str
    caption: str
    alt: str = ""
    figure: "Figure | None" = None
    marks: "Sequence[Mark]" = ()


@dataclass(frozen=True)
class Mark:
    """A point of a figure: shares of its width from the left and of its height from the top, and what it is."""

    left: float
    top: float
    text: str


def colours(count: int) -> list[Any]:
    """Distinguishable colours: the palette, or, for more than it has, steps along viridis."""
    if count <= len(PALETTE):
        return list(PALETTE[:count])
    import matplotlib

    scale = matplotlib.colormaps["viridis"]
    return [scale(0.95 * i / (count - 1)) for i in range(count)]


def criterion_colour(name: str) -> str:
    """The colour of a criterion, the same in every picture; the dense network is dark."""
    if name in CRITERIA:
        return PALETTE[CRITERIA.index(name)]
    return OWN[zlib.crc32(name.encode()) % len(OWN)] if choices.is_own(name) else INK


def method_colour(name: str, family: str) -> str:
    """The colour of a comparison's method, the same in every picture; a user's own has one of `OWN`."""
    return UNITS.get(name) or FAMILIES.get(family) or OWN[zlib.crc32(name.encode()) % len(OWN)]


def dashes(chain: int) -> Any:
    """The line style of a chain, where colour is taken."""
    return DASHES[chain % len(DASHES)]


def new_figure(width: float, height: float) -> "Figure":
    """Make an empty figure (in inches) that draws with Agg and lays itself out."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06))
    FigureCanvasAgg(figure)
    return figure


def tidy(ax: "Axes", x: str = "", y: str = "", title: str = "") -> None:
    """Label axes, units included, and remove what carries no information."""
    ax.set_xlabel(x, fontsize=9)
    ax.set_ylabel(y, fontsize=9)
    ax.set_title(title, fontsize=10, loc="left")
    ax.tick_params(labelsize=8, colors=INK)
    ax.grid(True, color="#E6E6E6", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def draw_axis(ax: "Axes", draws: int, per_cycle: int) -> None:
    """Number draws by integers and mark where a new cycle begins."""
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    for first in range(per_cycle, draws, per_cycle):
        ax.axvline(first - 0.5, color="#AAAAAA", linestyle=":", linewidth=1)


def legend_below(figure: Any, handles: Sequence[Any], columns: int) -> None:
    """Put one legend for all panels under them, where it hides nothing; it is read row by row.

    It has so many columns, or as many as the figure is wide enough for.
    """
    for count in range(min(columns, len(handles)), 0, -1):
        by_column = [handle for column in range(count) for handle in handles[column::count]]
        legend = figure.legend(handles=by_column, loc="outside lower center", ncols=count, fontsize=8, frameon=False)
        if count == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()


def line(label: str, **looks: Any) -> Any:
    """Make a legend entry that looks like a line."""
    from matplotlib.lines import Line2D

    return Line2D([], [], label=label, **looks)


def chain_lines(chains: int) -> list[Any]:
    """Legend entries for chains told apart by line style."""
    return [line(f"chain {c}", color="#777777", linestyle=dashes(c)) for c in range(chains)]


def png(figure: "Figure") -> bytes:
    """Render a figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=140)
    return buffer.getvalue()
