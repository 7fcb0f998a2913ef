"""The long comparison from its finished cells: pages of all rows, and `comparison.csv` in each folder for the pictures.

Pictures: `python ../../analysis/compare_pareto.py mlp/comparison.csv --out mlp_pareto.png` in the folder.
"""

from pathlib import Path
from statistics import fmean

from sgmcmc_prune.compare.comparison import finished_rows
from sgmcmc_prune.compare.table import summary, write_csv

FOLDER = Path(__file__).parent / "comparison_long"
NETWORKS = {"lenet": "LeNet", "mlp": "the MLP"}
ABOUT = "The command is in the [README](README.md). Intervals are Student's, 95 %, over seeds, paired for differences."


def page(name: str) -> str:
    """The page of one network, all its rows."""
    rows = finished_rows(FOLDER / name)
    seeds = {row["seed"] for row in rows}
    table = summary(rows, "log-odds-in-chain")
    return f"# The long comparison on {NETWORKS[name]}, {len(seeds)} seeds\n\n{ABOUT}\n\n```\n{table}\n```\n"


def means(name: str) -> str:
    """Lines of the README: method, and means over seeds of accuracy and NLL of single networks at each sparsity."""
    rows = [row for row in finished_rows(FOLDER / name) if row["kind"] == "single" and not row["own_stopping_rule"]]
    lines = []
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        cells = [
            " / ".join(f"{fmean(row[key] for row in own if row['sparsity'] == s):.4f}" for key in ("accuracy", "nll"))
            for s in sorted({row["sparsity"] for row in own})
        ]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    for name in NETWORKS:
        (FOLDER / f"{name}.md").write_text(page(name))
        judged = {"split": "test", "data": "Fashion-MNIST"}
        write_csv(FOLDER / name / "comparison.csv", [row | judged for row in finished_rows(FOLDER / name)])
        print(f"{NETWORKS[name]}\n\n{means(name)}\n")
