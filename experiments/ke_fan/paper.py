"""Ke and Fan, beside ours: three simulated examples of variable selection, and CIFAR and ImageNet, which are owed."""

from functools import partial
from typing import Any

from experiments import literature
from experiments.ke_fan import cifar10, cifar100, example1, example2, example3, examples, figure, imagenet
from experiments.papers import Claim, Figure, Ours, Paper, Script, ahead, every, number

EXAMPLES = {1: example1.SETTINGS, 2: example2.SETTINGS, 3: example3.SETTINGS}


def scores(content: Any, key: str, method: str = "ours") -> dict[int, float]:
    """A score by seed."""
    return {run["seed"]: float(run[key]) for run in content["runs"] if run["method"] == method}


def recovered(content: Any) -> Ours | None:
    """Whether the inputs that are kept are the true ones, data set by data set."""
    return every([bool(v) for v in scores(content, "recovered").values()], "exactly the true inputs")


def released_variance(content: Any) -> Ours | None:
    """The released update's variances over the exact ones, extrapolated to step 0, on a Gaussian."""
    rows = [r for r in content["rows"] if r["sampler"] == "AdaptiveSGHMC, as released" and r["must_fail"]]
    ratios = ", ".join(f"{row['estimate'] / row['exact']:.2f}" for row in rows)
    right = all(abs(row["z"]) < 4 for row in rows)
    return Ours(f"variances over the exact ones: {ratios} (|z| >= {min(abs(r['z']) for r in rows):.0f})", holds=right)


def example(k: int) -> dict[str, Any]:
    """Our settings of an example in the terms of the released notebooks."""
    s = EXAMPLES[k]
    steps = s.burn_in + s.sample + s.refine_burn_in + s.refine_cycles * (s.refine_explore + s.refine_sample)
    return {
        "inputs": s.design.num_inputs,
        "widths": s.widths,
        "training examples": s.num_train,
        "test examples": s.num_test,
        "batch": s.batch_size,
        "epochs": steps * s.batch_size // s.num_train,
        "largest step": s.lr,
        "momentum": s.momentum,
        "weight decay of the slab": float(f"{1 / (s.num_train * s.slab_variance):.2g}"),
        "weight decay of the spike": float(f"{1 / (s.num_train * s.spike_variance):.2g}"),
        "noise": "temperature 1",
        "sampler": "SGHMC",
        "E-step": "probabilities of the mixture",
        "M-step": "inclusion rate and slab variance",
        "inputs are removed": "inclusion below 1/2, after the first stage and each later cycle",
        "test noise": "its own",
        "sparsity counts": "weights",
        "loss": "Gaussian likelihood, noise variance 1" if not s.design.binary else "cross-entropy",
    }


DESIGN = {1: (1.1079, 0.9897), 2: (2.4935, 0.9931), 3: (0.961, 0.9873)}


def rows(k: int) -> list[Claim]:
    """Test score, its control without EM, and sparsity of an example."""
    common = {"results": f"ke_fan_example{k}", "about": f"example {k}", "authors": "notebook, one run"}
    score = "test accuracy" if k == 3 else "test MSE (the noise is 1)"
    return [
        Claim(f"Example {k}: {score}", figure=DESIGN[k][0], read=lambda c: number(scores(c, "score"), 4), **common),
        Claim(f"Example {k}: sparsity", figure=DESIGN[k][1], read=lambda c: number(scores(c, "sparsity"), 4), **common),
    ]


def control(k: int) -> Claim:
    """Whether EM is better than the same chain without it."""

    def read(content: Any) -> Ours | None:
        return ahead(scores(content, "score"), scores(content, "score", "no EM"), 3, lower=k != 3, what="data set")

    text = f"Example {k}: EM predicts better than the same chain under a fixed Gaussian prior (our control)"
    return Claim(text, "no such comparison was read", results=f"ke_fan_example{k}", read=read, about=f"example {k}")


TRUE = "tables not read"
PAPER = Paper(
    title="Ke and Fan: on the optimization and pruning for Bayesian deep learning",
    arxiv="2210.12957",
    known="The abstract, the end of section 1 and the first lines of section 2 could be read, and all of the released "
    "code with its notebooks. None of the paper's own tables and figures could be read, so none is beside ours.",
    folder="ke_fan",
    scripts=[
        *(
            Script(f"ke_fan.example{k}", partial(examples.main, s), "--out {out}", "--out {out}")
            for k, s in EXAMPLES.items()
        ),
        literature.script(cifar10, "CIFAR-10"),
        literature.script(cifar100, "CIFAR-100"),
        literature.script(imagenet, "ImageNet", at_the_desk=False),
    ],
    claims=[
        Claim(
            "The adaptive variational update is SGHMC with a preconditioner: the released update samples a Gaussian's "
            "posterior",
            "equivalence, by derivation",
            results="certify",
            read=released_variance,
        ),
        *(
            Claim(
                f"One run optimises and prunes, without retraining: example {k}, only the relevant inputs stay",
                TRUE,
                f"{n} of {n} inputs, none false (notebook, one run)",
                results=f"ke_fan_example{k}",
                read=recovered,
                about=f"example {k}",
            )
            for k, n in ((1, 5), (2, 5), (3, 4))
        ),
        Claim("Dense networks on CIFAR-10 are state of the art", TRUE, owed="`ke_fan.cifar10`", about="cifar-10"),
        Claim("Dense networks on CIFAR-100 are state of the art", TRUE, owed="`ke_fan.cifar100`", about="cifar-100"),
        Claim("Dense and sparse networks on ImageNet", TRUE, "no code", owed="`ke_fan.imagenet`", about="imagenet"),
        Claim(
            "Sparse networks compare very well with earlier pruning (CIFAR)",
            TRUE,
            "none: pruning never starts in the released scripts",
            owed="`ke_fan.cifar10`, `ke_fan.cifar100`",
            about="cifar-10",
        ),
        Claim(
            "Only the generated weight is stored, which saves memory and time",
            "section 1",
            "the released optimiser keeps four tensors and two masks beside each weight",
            owed="memory and time of their update",
        ),
    ],
    numbers=[claim for k in EXAMPLES for claim in (*rows(k), control(k))],
    figures=[
        Figure(
            f"ke_fan_example{k}",
            f"Example {k}: size and inclusion of every input at the first decision, and the course of loss and kept "
            "inputs, with EM, without EM and without noise.",
            f"ke_fan_example{k}",
            figure.draw,
        )
        for k in EXAMPLES
    ],
    ours={
        **{f"example {k}": partial(example, k) for k in EXAMPLES},
        "cifar-10": lambda: literature.described(cifar10.EXPERIMENT, "em T=1e-5"),
        "cifar-100": lambda: literature.described(cifar100.EXPERIMENT, "em T=1e-5"),
        "imagenet": lambda: literature.described(imagenet.EXPERIMENT, "marginal T=1"),
    },
)
