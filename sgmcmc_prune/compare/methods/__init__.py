"""All methods, by name: one adapter file per family, none of which knows the comparison. A user's own is found, too."""

from itertools import chain

from sgmcmc_prune import choices
from sgmcmc_prune.compare.method import Method
from sgmcmc_prune.compare.methods import (
    bmr,
    chain_reduction,
    chains,
    ensembles,
    expected_loss,
    laplace,
    mixtures,
    one_shot,
    point_estimates,
    structured,
    variational,
)

_FAMILIES = (chains, expected_loss, chain_reduction, point_estimates, mixtures, variational, bmr, laplace)
#: By track: trained under the mask or before it with the whole budget; one shot, from one network of a seed; whole
#: units, trained under the mask; and one network against several at equal weights.
TRACKS: dict[str, dict[str, Method]] = {
    "trained": {method.name: method for method in chain.from_iterable(family.methods() for family in _FAMILIES)},
    "one-shot": {method.name: method for method in one_shot.methods()},
    "structured": {method.name: method for method in structured.methods()},
    "ensembles": {method.name: method for method in ensembles.methods()},
}
#: Tracks on which a name means something else than on the others: they take their own methods alone.
APART = ("structured", "ensembles")
METHODS: dict[str, Method] = TRACKS["trained"]
ALL: dict[str, Method] = {name: method for track in TRACKS.values() for name, method in track.items()}


def check_track(name: str, track: str) -> None:
    """ValueError if a method of the library is not one of a track."""
    of = [other for other, methods in TRACKS.items() if name in methods]
    if of and track not in of and (track in APART or all(other in APART for other in of)):
        raise ValueError(
            f"method {name} is one of the track {of[0]}; the track {track} has {', '.join(TRACKS[track])}, and your own"
        )


def find(name: str) -> Method:
    """The method of a name: one of `ALL`, or a user's own "package.module:attribute".

    That is a `Method`, or its `fit`: a function of the problem and a folder of its own that yields candidates.

    Raises
    ------
    ValueError
        If there is no such method, or a user's own cannot be imported.
    """
    for track in TRACKS.values():
        if name in track:
            return track[name]
    if not choices.is_own(name):
        raise ValueError(
            f"method {name} is unknown; `sgmcmc-prune methods` lists {len(ALL)}, and your own is "
            "'package.module:attribute'"
        )
    found = choices.load("comparison method", name)
    if isinstance(found, Method):
        return found
    if not callable(found):
        raise ValueError(f"method {name!r} is of type {type(found).__name__}; it must be a Method, or a function")
    return Method(name, "own", "-", "as you say", lambda problem: None, found, {})
