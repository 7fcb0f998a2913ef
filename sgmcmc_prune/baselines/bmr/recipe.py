"""How long, how fast and how often: the schedules of Markovic et al., in both of their generations.

The authors' scripts exist in two states with different results. *The pruned fraction belongs to the recipe as much as
to the data*: for LeNet on Fashion-MNIST theirs is .35 with one and .81 with the other.
"""

from dataclasses import dataclass, replace

#: The paper's names: Flat-MAP, Flat-FF, Tiered-FF, BMR-S&S, BMR-RHS.
METHODS = ("flat-map", "flat-ff", "tiered-ff", "bmr-spike-slab", "bmr-horseshoe")


@dataclass(frozen=True)
class Recipe:
    """One training run.

    Attributes
    ----------
    rounds, iterations : int
        Rounds of so many steps; with a reduction before each of them.
    warm_up : int
        Steps before the first reduction; methods without one do not take them.
    batch_size : int
    lr : float
        Of AdaBelief, constant.
    cavi_iterations : int
        Coordinate-ascent steps of the spike-and-slab mask, a part of the method (see `spike_slab`).
    count_pruned : bool
        Whether weights that were pruned before still count in a layer's inclusion rate, with a delta F of 0, as in the
        authors' code; it changes how much is pruned (docs/discrepancies.md).
    draws : int
        Networks averaged in a prediction (one for a point estimate).
    """

    rounds: int = 50
    iterations: int = 500
    warm_up: int = 500
    batch_size: int = 120
    lr: float = 1e-2
    cavi_iterations: int = 4
    count_pruned: bool = False
    draws: int = 100

    def __post_init__(self) -> None:
        """Check the ranges."""
        if min(self.rounds, self.iterations, self.batch_size, self.draws, self.lr) <= 0:
            raise ValueError(f"rounds, iterations, batch_size, draws and lr must be > 0; the recipe is {self}")
        if min(self.warm_up, self.cavi_iterations) < 0:
            raise ValueError(f"warm_up and cavi_iterations must not be negative; the recipe is {self}")


#: "A" is the state of the scripts in August to October 2023, "B" that from the end of October on.
GENERATIONS = {
    "A": Recipe(rounds=5, iterations=20_000, warm_up=100_000, batch_size=128, lr=1e-3),
    "B": Recipe(rounds=50, iterations=500, warm_up=500, batch_size=120, lr=1e-2),
}
_GENERATION_B_LR = {"flat-map": 1e-3, "flat-ff": 5e-3, "tiered-ff": 5e-3}


def paper_recipe(generation: str, method: str) -> Recipe:
    """Give the authors' settings of a method.

    Parameters
    ----------
    generation : {"A", "B"}
    method : str
        One of `METHODS`.

    Raises
    ------
    ValueError
        If either is unknown.
    """
    if generation not in GENERATIONS or method not in METHODS:
        raise ValueError(
            f"generation is {generation!r} and method {method!r}; choose A or B, and one of {', '.join(METHODS)}"
        )
    recipe = GENERATIONS[generation]
    return recipe if generation == "A" else replace(recipe, lr=_GENERATION_B_LR.get(method, recipe.lr))
