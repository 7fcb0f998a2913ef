"""`python -m sgmcmc_prune` is `sgmcmc-prune`; `torchrun -m sgmcmc_prune` runs it in many processes."""

from sgmcmc_prune.cli import main

if __name__ == "__main__":
    main()
