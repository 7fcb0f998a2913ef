"""Removing weights by joint evidence, and moving the others: Gaussians, curvatures in blocks, stages."""
