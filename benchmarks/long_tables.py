"""All rows of the long comparison as pages, from its finished cells: `python benchmarks/long_tables.py`."""

from pathlib import Path
from statistics import fmean

from sgmcmc_prune.compare.cell import load
from sgmcmc_prune.compare.comparison import finished_rows
from sgmcmc_prune.compare.table import summary

FOLDER = Path(__file__).parent / "comparison_long"
NETWORKS = {"lenet": "LeNet", "mlp": "the MLP"}
ABOUT = "The command is in the [README](README.md). Intervals are Student's, 95 %, over seeds, paired for differences."


def page(name: str) -> str:
    """The page of one network: methods with as many seeds as the settings name, and nothing of the others."""
    seeds = load(FOLDER / name).seeds
    rows = finished_rows(FOLDER / name)
    done = [row for row in rows if {r["seed"] for r in rows if r["method"] == row["method"]} == set(seeds)]
    table = summary(done, "log-odds-in-chain")
    return f"# The long comparison on {NETWORKS[name]}, {len(seeds)} seeds\n\n{ABOUT}\n\n```\n{table}\n```\n"


def so_far(name: str) -> str:
    """Lines of a network that is in progress: method, seeds, and means of accuracy and NLL of single networks."""
    rows = [row for row in finished_rows(FOLDER / name) if row["kind"] == "single" and not row["own_stopping_rule"]]
    lines = []
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        cells = [
            " / ".join(f"{fmean(row[key] for row in own if row['sparsity'] == s):.4f}" for key in ("accuracy", "nll"))
            for s in sorted({row["sparsity"] for row in own})
        ]
        lines.append(f"| {method} | {len({row['seed'] for row in own})} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    for name in NETWORKS:
        (FOLDER / f"{name}.md").write_text(page(name))
