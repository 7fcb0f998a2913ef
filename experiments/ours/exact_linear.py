"""Inclusion probabilities of spike-and-slab linear regression on a table of numbers: sampled, and by enumeration.

    python -m experiments.ours.exact_linear --data yacht.txt --target -1 --noise-variance 0.35 --spike 1e-3 \\
        --slab 0.5 --pi 0.3 --out yacht.json

The table is separated by blanks; `#` starts a comment, and a first line of names after `#` is a header. Constant
columns are dropped; features and target are standardised (no intercept). Hyperparameters are fixed. With at most 15
features all models are enumerated, too. The chains are those of `linear_chains.py`: they are run at twice the step as
well, and the difference, an upper estimate of the step-size bias, is printed beside the Monte-Carlo standard error.

Bad input is one line on standard error and exit code 2.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from experiments.ours.linear_chains import STEP, Ladder, Regression, Sampled, sample
from sgmcmc_prune.certify.enumeration import MAX_FEATURES, ExactPosterior, enumerate_models
from sgmcmc_prune.priors.spike_slab import Mode, check_hyperparameters
from sgmcmc_prune.store.files import write_json

TARGET_MCSE = 0.0045
#: Processor time for the two runs.
SECONDS, BIAS_SECONDS = 60.0, 30.0
#: Above this, replicates disagree about where the weights are.
MAX_RHAT = 1.1


class Table(NamedTuple):
    """Numbers (rows, columns), float64, and the columns' names if the file has a header."""

    values: Tensor
    names: list[str]


def read_table(path: Path) -> Table:
    """Read blank-separated numbers.

    Raises
    ------
    ValueError
        For no rows, rows of different length, or a token that is not a finite number, with its line and column.
    """
    rows: list[list[float]] = []
    names: list[str] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        text, _, comment = line.partition("#")
        if not text.strip():
            names = names or (comment.split() if not rows else [])
            continue
        rows.append([_number(token, path, number, k) for k, token in enumerate(text.split(), start=1)])
        if len(rows[-1]) != len(rows[0]):
            raise ValueError(f"{path}, line {number}: {len(rows[-1])} numbers, but the first row has {len(rows[0])}")
    if not rows:
        raise ValueError(f"{path} holds no numbers")
    return Table(torch.tensor(rows, dtype=torch.float64), names)


def _number(token: str, path: Path, line: int, column: int) -> float:
    try:
        value = float(token)
    except ValueError:
        value = float("nan")
    if not abs(value) < float("inf"):
        raise ValueError(f"{path}, line {line}, column {column}: {token!r} is not a finite number")
    return value


def split_target(table: Table, target: str) -> tuple[Tensor, Tensor]:
    """Standardised features and target: constant columns dropped, mean 0, variance 1 (divisor n)."""
    columns = table.values.shape[1]
    index = _column(table, target)
    y = table.values[:, index]
    x = table.values[:, [k for k in range(columns) if k != index]]
    if bool((y == y[0]).all()):
        raise ValueError(f"target column {target} is constant; there is nothing to explain")
    x = x[:, (x != x[0]).any(0)]
    if x.shape[1] == 0:
        raise ValueError("every feature column is constant; there is nothing to explain the target with")
    return _standardise(x), _standardise(y)


def _column(table: Table, target: str) -> int:
    columns = table.values.shape[1]
    if target in table.names and len(table.names) == columns:
        return table.names.index(target)
    try:
        index = int(target)
    except ValueError:
        known = f"the header names {' '.join(table.names)}" if table.names else "the file has no header line"
        raise ValueError(f"target column {target!r} is neither a number nor a name; {known}") from None
    if not -columns <= index < columns:
        raise ValueError(f"target column {index} is out of range; the table has {columns} columns, 0 to {columns - 1}")
    return index % columns


def _standardise(values: Tensor) -> Tensor:
    return (values - values.mean(0)) / values.std(0, correction=0)


def enumerated(problem: Regression) -> ExactPosterior:
    """Average the problem's models exactly."""
    return enumerate_models(problem.x, problem.y, noise_variance=problem.noise_variance, **problem.hyperparameters)


def sample_and_measure_bias(problem: Regression, mode: Mode, seed: int) -> tuple[Sampled, Tensor]:
    """Averages at the step, and the difference of the inclusion probabilities at twice the step, shape (p,)."""
    fine = sample(Ladder(problem, mode, seed=seed), TARGET_MCSE, SECONDS)
    coarse = sample(Ladder(problem, mode, step=2 * STEP, seed=seed, chain=1), TARGET_MCSE, BIAS_SECONDS)
    return fine, coarse.inclusion_probability - fine.inclusion_probability


def result(sampled: Sampled, exact: ExactPosterior | None, mode: Mode) -> dict[str, Any]:
    """Collect what the file holds."""
    values = {k: v.tolist() for k, v in sampled._asdict().items() if k != "rhat"}
    document: dict[str, Any] = {"sampled": values}
    if exact is not None:
        document["exact"] = {k: v.tolist() for k, v in exact._asdict().items() if k != "model_probability"}
    return document | ({"mode": mode} if mode == "em" else {})


def report(sampled: Sampled, difference: Tensor, exact: ExactPosterior | None, mode: Mode) -> None:
    """Print precision and error; warn on standard error about what not to believe."""
    mcse = float(sampled.mcse.max())
    print(f"largest Monte-Carlo standard error {mcse:.4f}; at twice the step {float(difference.abs().max()):.4f} away")
    if exact is not None:
        error = (sampled.inclusion_probability - exact.inclusion_probability).abs().max()
        print(f"largest difference from enumeration {float(error):.4f}")
    if mode == "em":
        print("mode em: inclusion_probability holds a responsibility, which is not a posterior probability")
    elif sampled.rhat > MAX_RHAT:
        print(f"warning: the chains disagree (R-hat {sampled.rhat:.2f}); do not trust the averages", file=sys.stderr)
    elif mcse > 0.005:
        print(f"warning: out of time with a standard error of {mcse:.4f}", file=sys.stderr)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, help="table of numbers")
    parser.add_argument("--target", required=True, help="column of the target: from 0, or negative, or a name")
    parser.add_argument("--noise-variance", required=True, type=float, help="of the standardised target, known")
    parser.add_argument("--spike", required=True, type=float, help="spike variance v0")
    parser.add_argument("--slab", required=True, type=float, help="slab variance v1 > v0")
    parser.add_argument("--pi", required=True, type=float, help="prior inclusion probability, inside (0, 1)")
    parser.add_argument("--mode", choices=("marginal", "gibbs", "em"), default="marginal")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", required=True, type=Path, help="the result (JSON)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Sample, enumerate, write; return the exit code."""
    options = parse(argv)
    torch.set_num_threads(1)  # tensors this small are slower on several
    try:
        check_hyperparameters(options.pi, options.spike, options.slab)
        if not 0 < options.noise_variance < float("inf"):
            raise ValueError(f"noise-variance is {options.noise_variance}; it must be finite and > 0")
        x, y = split_target(read_table(options.data), options.target)
        problem = Regression(x, y, options.noise_variance, options.spike, options.slab, options.pi)
        exact = enumerated(problem) if x.shape[1] <= MAX_FEATURES else None
        sampled, difference = sample_and_measure_bias(problem, options.mode, options.seed)
        write_json(options.out, result(sampled, exact, options.mode))
    except (ValueError, OSError) as error:
        print(f"exact_linear: {error}", file=sys.stderr)
        return 2
    report(sampled, difference, exact, options.mode)
    return 0


if __name__ == "__main__":
    sys.exit(main())
