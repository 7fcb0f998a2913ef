"""Figures and one self-contained HTML page, from run directories alone."""

from sgmcmc_prune.report.comparison import write_comparison
from sgmcmc_prune.report.write import require_page, write_report

__all__ = ["require_page", "write_comparison", "write_report"]
