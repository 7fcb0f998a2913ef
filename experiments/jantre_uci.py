"""UCI regression with the standard splits: error and log density of the variational families.

    python experiments/jantre_uci.py --data-dir DIR [--sets yacht concrete] [--splits 20] [--families ss_ig ...]

DIR holds `UCI_Datasets/NAME/data/...` (see `sgmcmc_prune.data.uci`). One hidden layer of 50 ReLU units (protein: 100),
learned noise, Adam 1e-2 on a cosine, gates started at 0.5 under lambda = 0.1. Errors are in original units. The
papers' tables were not available to us, so no published row stands beside these.

Measured, `--sets yacht energy --splits 5 --epochs 300` (mean and standard error of the test RMSE over splits, by Monte
Carlo and of the pruned network):

    family      yacht                      energy
    mean field  0.98 (0.11)  1.82 (0.15)   0.65 (0.06)  0.71 (0.06)
    SS-IG       3.16 (0.22)  3.70 (0.24)   2.79 (0.09)  2.82 (0.12)
    SS-GL       2.75 (0.12)  3.02 (0.13)   2.83 (0.08)  2.89 (0.11)
    SS-GHS      3.37 (0.21)  3.45 (0.29)   2.72 (0.06)  2.72 (0.06)
    SVBNN       1.85 (0.19)  1.93 (0.21)   2.27 (0.16)  2.27 (0.16)

These data sets are small, and every sparse family pays for its gates. The other sets, and twenty splits, are owed.
"""

import argparse
import math
from pathlib import Path
from typing import Any

import torch
from records import complete

from sgmcmc_prune.baselines.variational import (
    PREDICTORS,
    LearnedGaussian,
    Settings,
    fit,
    mean_field,
    ss_ghs,
    ss_gl,
    ss_ig,
    svbnn,
)
from sgmcmc_prune.data import uci
from sgmcmc_prune.models import build

GATES = {"inclusion": 0.1, "start": 0.5}
FAMILIES = {
    "mean_field": mean_field(),
    "ss_ig": ss_ig(**GATES),
    "ss_gl": ss_gl(**GATES),
    "ss_ghs": ss_ghs(centred=True, **GATES),
    "svbnn": svbnn(**GATES),
}


def run(root: Path, name: str, index: int, family: str, epochs: int) -> dict[str, Any]:
    """One family on one split: what is measured, JSON-ready."""
    split = uci.load(root, name, index)
    (inputs, targets), num_data = split.test, len(split.train[1])
    model = build("mlp", (inputs.shape[1],), 1, seed=index, widths=(100 if name.startswith("protein") else 50,))
    batch = min(256, num_data)
    steps = max(1, epochs * num_data // batch)
    settings = Settings(FAMILIES[family], steps, batch, lr=1e-2, gate_lr=5e-2, seed=index, on_empty="warn")
    fitted = fit(model, split.train, settings, LearnedGaussian(0.5))
    rmse, nll = {}, {}
    for how in PREDICTORS:
        error = fitted.predict(inputs, how, 50).flatten() - targets
        rmse[how] = float(error.square().mean().sqrt()) * split.target_std
        nll[how] = fitted.nll(inputs, targets, how, 50) + math.log(split.target_std)
    kept = fitted.kept_groups(index) if family != "mean_field" else {}
    return {"rmse": rmse, "nll": nll, "kept": kept, "bound": fitted.bound, "seconds": fitted.seconds}


def main(argv: list[str] | None = None) -> None:
    """Run every family on every split; print means over splits and write the records."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", help="all by default")
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=400)
    parser.add_argument("--families", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--out", type=Path, default=Path("benchmarks"))
    args = parser.parse_args(argv)
    names = args.sets or uci.names(args.data_dir)
    cells = [
        {"set": name, "family": family, "split": split, "epochs": args.epochs}
        for name in names
        for family in args.families
        for split in range(min(args.splits, 5) if name.startswith("protein") else args.splits)
    ]

    def compute(set: str, family: str, split: int, epochs: int) -> dict[str, Any]:
        return run(args.data_dir, set, split, family, epochs)

    runs = complete(args.out / "jantre_uci.json", cells, compute, _line)
    for name in names:
        for family in args.families:
            rows = [r for r in runs if (r["set"], r["family"], r.get("epochs")) == (name, family, args.epochs)]
            scores = "  ".join(_mean_and_error(rows, how) for how in PREDICTORS)
            print(f"{name:28s} {family:11s} {len(rows)} splits  {scores}")


def _line(record: dict[str, Any]) -> str:
    errors = ", ".join(f"{how} {record['rmse'][how]:.3f}" for how in PREDICTORS)
    return f"{record['set']}, {record['family']}, split {record['split']}: RMSE {errors}; {record['seconds']:.0f} s"


def _mean_and_error(rows: list[dict[str, Any]], how: str) -> str:
    text = [how]
    for key in ("rmse", "nll"):
        values = torch.tensor([row[key][how] for row in rows], dtype=torch.float64)
        error = float(values.std() / math.sqrt(len(values))) if len(values) > 1 else math.nan
        text.append(f"{key} {float(values.mean()):.3f} ({error:.3f})")
    return " ".join(text)


if __name__ == "__main__":
    main()
