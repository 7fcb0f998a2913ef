"""Bayesian model reduction against MAP and mean-field inference on CIFAR-10: MLP, LeNet, ViT and MLP-Mixer.

    python -m experiments.markovic.cifar10 --variants "B lenet bmr-spike-slab" --seeds 0 --jobs 1

Recipes, networks and what departs from the authors' scripts: `common.py`. An interrupted sweep goes on where
it was. Figures: `experiments/markovic/figure_curves.py`, `experiments/markovic/figure_weights.py`.
"""

from experiments.markovic.common import main

if __name__ == "__main__":
    main("cifar10", __file__, __doc__ or "")
