"""Every choice by name: one of ours, or a user's own `package.module:attribute`. Nothing is loaded before it is asked.

This is the one place that turns a name into an object. A configuration keeps the name; `check` looks whether it can be
one without importing anything, and `load` finds what it names.
"""

import ast
import hashlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from sgmcmc_prune.errors import RunError

_MODELS, _PRIORS, _SAMPLERS = "sgmcmc_prune.models", "sgmcmc_prune.priors", "sgmcmc_prune.samplers"
_DATA, _CRITERIA, _MASSES = "sgmcmc_prune.data", "sgmcmc_prune.criteria", "sgmcmc_prune.preconditioners"
_CURVATURES = "sgmcmc_prune.pruning.conditional.curvature"

#: Kinds of choice, and for each the names of this library and where they live.
OURS: dict[str, dict[str, str]] = {
    "network": {
        "lenet": f"{_MODELS}.lenet:LeNet",
        "mlp": f"{_MODELS}.mlp:MLP",
        "linear": f"{_MODELS}.linear:LinearModel",
        "vit": f"{_MODELS}.vit:VisionTransformer",
        "mlp-mixer": f"{_MODELS}.mlp_mixer:MLPMixer",
        **{
            name: f"{_MODELS}.resnet:NETWORKS.{name}"
            for name in (
                *("resnet20", "resnet32", "resnet20_wide", "resnet32_wide", "resnet20_frn_swish"),
                *("resnet18", "resnet34", "resnet50"),
            )
        },
        "wide_resnet28_10": f"{_MODELS}.wide_resnet:NETWORKS.wide_resnet28_10",
        "vgg16": f"{_MODELS}.vgg:VGG",
    },
    "data set": {
        "fashion-mnist-subset": f"{_DATA}.fashion_mnist:subset",
        "fashion-mnist": f"{_DATA}.fashion_mnist:load",
        "cifar10": f"{_DATA}.cifar:cifar10",
        "cifar100": f"{_DATA}.cifar:cifar100",
        "imagenet": f"{_DATA}.imagenet:load",
        "waves": f"{_DATA}.selection:waves",
    },
    "likelihood": {
        "categorical": "sgmcmc_prune.likelihoods:categorical",
        "bernoulli": "sgmcmc_prune.likelihoods:bernoulli",
        "gaussian": "sgmcmc_prune.likelihoods:Gaussian",
        "poisson": "sgmcmc_prune.likelihoods:poisson",
    },
    "prior": {
        "spike_slab": f"{_PRIORS}.spike_slab:SpikeSlab",
        "gaussian": f"{_PRIORS}.gaussian:Gaussian",
        "laplace": f"{_PRIORS}.laplace:Laplace",
        "student_t": f"{_PRIORS}.student_t:StudentT",
        "horseshoe": f"{_PRIORS}.horseshoe:Horseshoe",
    },
    "sampler": {
        "sghmc": f"{_SAMPLERS}.sghmc:SGHMC",
        "sgld": f"{_SAMPLERS}.sgld:SGLD",
        "baoab": f"{_SAMPLERS}.baoab:BAOAB",
        "obabo": f"{_SAMPLERS}.obabo:OBABO",
        "sgnht": f"{_SAMPLERS}.sgnht:SGNHT",
        "adaptive_sghmc": f"{_SAMPLERS}.adaptive_sghmc:AdaptiveSGHMC",
    },
    "mass matrix": {
        "identity": f"{_MASSES}.base:Identity",
        "rmsprop": f"{_MASSES}.rmsprop:RMSprop",
        "layerwise": f"{_MASSES}.layerwise:Layerwise",
    },
    "criterion": {
        "inclusion_probability": f"{_CRITERIA}.inclusion:InclusionProbability",
        "expected_log_odds": f"{_CRITERIA}.inclusion:ExpectedLogOdds",
        "em_responsibility": f"{_CRITERIA}.inclusion:EMResponsibility",
        "magnitude": f"{_CRITERIA}.magnitude:Magnitude",
        "lamp": f"{_CRITERIA}.lamp:Lamp",
        "root_mean_square": f"{_CRITERIA}.magnitude:RootMeanSquare",
        "signal_to_noise": f"{_CRITERIA}.signal_to_noise:SignalToNoise",
        "random": f"{_CRITERIA}.random:Random",
        "conditional": f"{_CRITERIA}.conditional:Conditional",
    },
    "curvature": {
        "gram": f"{_CURVATURES}:Gram",
        "kfac": f"{_CURVATURES}:Kfac",
        "ggn": f"{_CURVATURES}:Ggn",
        "fisher": f"{_CURVATURES}:Fisher",
    },
    "decision": {
        "median": "sgmcmc_prune.pruning.decisions:Median",
        "fdr": "sgmcmc_prune.pruning.decisions:FalseDiscoveryRate",
        "loss_budget": "sgmcmc_prune.pruning.decisions:LossBudget",
    },
    "comparison method": {},  # ours are in compare.methods, which knows them by running
    "control": {name: f"sgmcmc_prune.baselines.dense:{name}" for name in ("sgd", "adamw")},
    "growth": {"cubic": "sgmcmc_prune.pruning.schedule:cubic", "linear": "sgmcmc_prune.pruning.schedule:linear"},
}


#: What stands before the label of an object that was handed over.
GIVEN = "given"
#: Names that are followed by a colon and an argument, such as "uci:yacht", by kind.
WITH_ARGUMENT: dict[str, dict[str, str]] = {
    "data set": {
        "uci": f"{_DATA}.tables:uci",
        "csv": f"{_DATA}.tables:csv",
        "npz": f"{_DATA}.tables:npz",
        "idx": f"{_DATA}.idx_folder:load",
    }
}

#: The file that held each of a user's own when a run that is read now was started.
_PLACES: dict[str, str] = {}


def is_own(name: str) -> bool:
    """Whether a name is a user's own, "package.module:attribute"."""
    module, colon, attribute = name.partition(":")
    if any(module in names for names in WITH_ARGUMENT.values()) or module == GIVEN:
        return False
    return bool(colon) and attribute.isidentifier() and all(part.isidentifier() for part in module.split("."))


def is_given(name: str) -> bool:
    """Whether a name stands for an object that was handed over, "given:LABEL"."""
    return name.startswith(f"{GIVEN}:")


def takes_argument(kind: str, name: str) -> bool:
    """Whether a name is one of ours with an argument, such as "uci:yacht"."""
    head, _, argument = name.partition(":")
    return head in WITH_ARGUMENT.get(kind, {}) and bool(argument)


def check(kind: str, name: str, where: str = "") -> None:
    """Refuse what can be no name of this kind, without importing anything; `where` is the setting that has it.

    Raises
    ------
    ValueError
        If the name is neither one of ours nor of the form "package.module:attribute".
    """
    if name not in OURS[kind] and not is_own(name) and not takes_argument(kind, name) and not is_given(name):
        known = ", ".join([*OURS[kind], *(f"{head}:..." for head in WITH_ARGUMENT.get(kind, {}))])
        raise ValueError(
            f"{where or kind} is {name!r}; choose one of {known}, or your own as 'package.module:attribute'"
        )


def load(kind: str, name: str) -> Any:
    """The object that a name stands for.

    Raises
    ------
    ValueError
        As `check`, or if a user's module cannot be imported, or lacks the attribute.
    """
    check(kind, name)
    if is_given(name):
        raise ValueError(
            f"{kind} {name!r} was handed to sgmcmc_prune.sample as an object, which no file can hold: call sample "
            "again, with the same object and out=...; then posterior.prune(0.8).network(chain=0) is a pruned "
            "nn.Module, for torch.save or torch.export"
        )
    if takes_argument(kind, name):
        head, _, argument = name.partition(":")
        module, _, path = WITH_ARGUMENT[kind][head].partition(":")
        return partial(getattr(import_module(module), path), argument)
    module, _, path = OURS[kind].get(name, name).partition(":")
    try:
        found: Any = import_module(module)
        for part in path.split("."):
            found = found[part] if isinstance(found, dict) else getattr(found, part)
    except (Exception, SystemExit) as error:  # a user's module may raise anything, or be a script that exits
        if not is_own(name):
            raise
        was = f"; {name} was in {_PLACES[name]}: type the command in that folder" if name in _PLACES else ""
        raise ValueError(f"{kind} {name!r} cannot be imported: {in_one_line(error)}{was}") from error
    return found


def load_callable(kind: str, name: str) -> Callable[..., Any]:
    """`load`, of what is called or instantiated; ValueError if it cannot be."""
    found = load(kind, name)
    if not callable(found):
        raise ValueError(f"{kind} {name!r} is a {type(found).__name__}; it must be callable")
    called: Callable[..., Any] = found
    return called


def make(kind: str, name: str, *arguments: Any, **options: Any) -> Any:
    """Call what a name stands for, with options that it has.

    Raises
    ------
    TypeError
        If it has no such option.
    ValueError
        If a user's own fails.
    """
    factory = load_callable(kind, name)
    check_options(f"{kind} {name}", factory, options, len(arguments))
    with calling(kind, name):
        return factory(*arguments, **options)


@contextmanager
def calling(kind: str, name: str) -> Iterator[None]:
    """Whatever a user's own raises in here becomes one line that names it; ours raise as they do.

    Raises
    ------
    ValueError
    """
    try:
        yield
    except Exception as error:
        if not is_own(name):
            raise
        raise ValueError(f"your {kind} {name} fails: {in_one_line(error)}") from error


def check_options(
    what: str, factory: Callable[..., Any], options: Mapping[str, Any], positional: int = 0, instead: str = ""
) -> None:
    """TypeError that names an option which a callable does not have, those it has, and what to do `instead`."""
    parameters = list(inspect.signature(factory).parameters.values())
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        return
    known = [p.name for p in parameters[positional:]]
    for option in options:
        if option not in known:
            raise TypeError(f"{what} has no option {option!r}; it has {', '.join(known) or 'none'}{instead}")


def defaults(kind: str, name: str) -> dict[str, Any]:
    """The options that a choice has by default, and their values; none of an object that was handed over."""
    if is_given(name):
        return {}
    parameters = inspect.signature(load_callable(kind, name)).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


def options(texts: Iterable[str], where: str) -> dict[str, Any]:
    """What was typed as NAME=VALUE: numbers, tuples, booleans and None as Python writes them, all else as text.

    Raises
    ------
    ValueError
        If there is no name, or it is given twice.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise ValueError(f"{where} has {text!r}; give NAME=VALUE, such as width=32")
        if name in found:
            raise ValueError(f"{where} gives {name} twice")
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[name] = value
    return found


def own_names(config: Any) -> Iterator[str]:
    """Every name of a user's own in a configuration, once."""
    seen: dict[str, None] = {}
    parts = [config]
    while parts:
        part = parts.pop()
        if is_dataclass(part):
            parts += [getattr(part, field.name) for field in fields(part) if field.name != "options"]
        elif isinstance(part, tuple):
            parts += part
        elif isinstance(part, str) and is_own(part):
            seen[part] = None
    return iter(seen)


def places(config: Any) -> dict[str, dict[str, str]]:
    """`file` and `sha256` of each of the user's own names of a configuration, as far as it was loaded from a file."""
    found = {name: getattr(sys.modules.get(name.partition(":")[0]), "__file__", None) for name in own_names(config)}
    paths = {name: Path(place).resolve() for name, place in found.items() if place}
    return {
        name: {"file": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for name, path in paths.items()
    }


def remember(found: Mapping[str, Mapping[str, str]]) -> None:
    """Keep what `places` said when a run was started, for the error of somebody who is elsewhere now."""
    _PLACES.update({name: place["file"] for name, place in found.items()})


def require_same(then: Mapping[str, Mapping[str, str]], now: Mapping[str, Mapping[str, str]]) -> None:
    """ValueError if a user's own is another file by now than it was when a run was started."""
    for name in then.keys() & now.keys():
        if then[name]["sha256"] != now[name]["sha256"]:
            raise ValueError(
                f"{name} is not what this run was started with: then {then[name]['file']}, now {now[name]['file']}, of "
                "other content. Put the file back, or start another run"
            )


def in_one_line(error: BaseException) -> str:
    """What went wrong in a user's code, and in which line of it; a complaint of this library speaks for itself."""
    text = next(iter(str(error).splitlines()), "")
    places = traceback.extract_tb(error.__traceback__)
    ours = [Path(place.filename).is_relative_to(Path(__file__).parent) for place in places]
    raised = (places[-1].line or "").startswith("raise")  # a call of theirs with too few arguments fails in our line
    complaint = ours[-1] and raised and isinstance(error, ValueError | TypeError | RunError)
    if complaint or isinstance(error, ImportError | AttributeError):
        return text
    theirs = [p for p, own in zip(places, ours, strict=True) if not own and not p.filename.startswith("<")]
    where = f" ({Path(theirs[-1].filename).name}, line {theirs[-1].lineno})" if theirs else ""
    return f"{type(error).__name__}: {text}{where}"
