"""Bayesian model reduction against MAP and mean-field inference on Fashion-MNIST: MLP, LeNet, ViT and MLP-Mixer.

    python experiments/markovic_fashion_mnist.py --variants "B lenet bmr-spike-slab" --seeds 0 --jobs 1

Recipes, networks and what departs from the authors' scripts: `markovic_common.py`. An interrupted sweep goes on where
it was. Figures: `analysis/markovic_curves.py`, `analysis/markovic_weights.py`.

Measured so far: LeNet, recipe `short`, seed 0, test split, one thread; no full recipe has been run yet.

    method          members  accuracy  ECE   NLL   one network  pruned
    flat-ff              30  .870      .033  .366  .876 (.345)  0
    bmr-spike-slab      100  .878      .037  .357  .878 (.350)  .117, and still growing by .024 a round

The pruned weights are in the third convolution (14 %) and the layer after it (2 %). After fifty rounds the authors have
.884 for Flat-FF and .902 with .81 pruned for BMR.
"""

from markovic_common import main

if __name__ == "__main__":
    main("fashion-mnist", __file__, __doc__ or "")
