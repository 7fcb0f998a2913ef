"""Bayesian model reduction against MAP and mean-field inference on CIFAR-100: MLP, LeNet, ViT and MLP-Mixer.

    python experiments/markovic_cifar100.py --variants "B lenet bmr-spike-slab" --seeds 0 --jobs 1

Recipes, networks and what departs from the authors' scripts: `markovic_common.py`. An interrupted sweep goes on where
it was. Figures: `analysis/markovic_curves.py`, `analysis/markovic_weights.py`.
"""

from markovic_common import main

if __name__ == "__main__":
    main("cifar100", __file__, __doc__ or "")
