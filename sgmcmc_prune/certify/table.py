"""The certificate: verdicts on rows, an aligned table, a JSON file."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sgmcmc_prune.certify.statistics import Row, holm
from sgmcmc_prune.store.files import atomic_path, finite_or_null, write_json
from sgmcmc_prune.text_table import format_rows

HEADER = ("sampler", "preconditioner", "target", "statistic", "exact", "estimate", "std. error", "z", "verdict")
PASS, FAIL, MUST_FAIL, MISSED = "pass", "FAIL", "fails, as it must", "PASSES, AND MUST NOT"


@dataclass(frozen=True)
class Certificate:
    """Rows and their verdicts at one family-wise false-alarm rate.

    Attributes
    ----------
    rows : sequence of Row
    false_alarm : float
        Probability that any row of a correct sampler fails (Holm's procedure over the whole table).
    seed : int
    quick : bool
    cpu_seconds : float
    """

    rows: Sequence[Row]
    false_alarm: float
    seed: int
    quick: bool
    cpu_seconds: float

    @property
    def verdicts(self) -> list[str]:
        """One for each row."""
        rejected = holm([row.p_value for row in self.rows], self.false_alarm)
        words = {(False, False): PASS, (True, False): FAIL, (True, True): MUST_FAIL, (False, True): MISSED}
        return [words[r, row.must_fail] for r, row in zip(rejected, self.rows, strict=True)]

    @property
    def passed(self) -> bool:
        """Whether every row came out as it must."""
        return set(self.verdicts) <= {PASS, MUST_FAIL}

    def format(self) -> str:
        """The table and a line that sums it up."""
        cells = [
            [row.sampler, row.preconditioner, row.target, row.statistic, *_numbers(row), verdict]
            for row, verdict in zip(self.rows, self.verdicts, strict=True)
        ]
        return f"{format_rows(HEADER, cells)}\n\n{self.summary()}"

    def to_markdown(self, command: str) -> str:
        """A page: one line for each sampler, preconditioner and target; all rows are in the JSON file."""
        groups: dict[tuple[str, str, str], list[tuple[Row, str]]] = {}
        for row, verdict in zip(self.rows, self.verdicts, strict=True):
            groups.setdefault((row.sampler, row.preconditioner, row.target), []).append((row, verdict))
        cells = [
            [*label, str(len(found)), f"{max(abs(row.z) for row, _ in found):.2f}", ", ".join({v: 0 for _, v in found})]
            for label, found in groups.items()
        ]
        table = format_rows((*HEADER[:3], "rows", "largest |z|", "verdict"), cells)
        return f"# Certificate of the samplers\n\n    {command}\n\n{self.summary()}.\n\n```\n{table}\n```\n"

    def summary(self) -> str:
        """How many rows, how many came out wrong, and at which rate."""
        verdicts = self.verdicts
        wrong = sum(v in (FAIL, MISSED) for v in verdicts)
        said = "all as they must be" if wrong == 0 else f"{wrong} WRONG"
        return (
            f"{len(verdicts)} rows, {said} ({verdicts.count(MUST_FAIL)} fail, as they must); false-alarm rate of the "
            f"whole table {self.false_alarm:g} (Holm); seed {self.seed}; {self.cpu_seconds:.0f} CPU seconds"
        )

    def to_json(self) -> dict[str, Any]:
        """Settings, versions and rows as plain JSON values; what is not a number is null."""
        rows = [{**asdict(row), "verdict": verdict} for row, verdict in zip(self.rows, self.verdicts, strict=True)]
        return {
            "passed": self.passed,
            "false_alarm": self.false_alarm,
            "seed": self.seed,
            "quick": self.quick,
            "cpu_seconds": round(self.cpu_seconds, 1),
            "rows": finite_or_null(rows),
        }

    def write(self, path: Path, command: str) -> None:
        """Write `path`, JSON with all rows, and a page beside it; `command` is what made them."""
        write_json(path, {"command": command, **self.to_json()})
        with atomic_path(path.with_suffix(".md")) as partial:
            partial.write_text(self.to_markdown(command), encoding="utf-8")


def _numbers(row: Row) -> list[str]:
    values = (row.exact, row.estimate, row.standard_error)
    return [*("" if np.isnan(v) else f"{v:.5g}" for v in values), f"{row.z:.2f}"]
