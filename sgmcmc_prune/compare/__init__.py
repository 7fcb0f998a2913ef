"""One honest comparison: methods x sparsities x seeds at one budget of gradient evaluations, every network twice.

    from sgmcmc_prune.compare.comparison import compare
    from sgmcmc_prune.compare.config import Comparison

    rows = compare(Comparison(methods=("inclusion-in-chain", "rigl"), seeds=(0, 1, 2)), Path("runs/compare"), jobs=2)

`compare` loops over methods and knows none of them; `methods/` holds one small adapter for each.
"""
