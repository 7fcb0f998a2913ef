"""Figures and one self-contained HTML page, from a run directory alone."""

from sgmcmc_prune.report.write import write_report

__all__ = ["write_report"]
