"""Names that a package offers are loaded when they are asked for: the command line answers without torch.

A package says them once, in the stub `__init__.pyi` beside its `__init__.py`, where type checkers look, too:

    from sgmcmc_prune.sampling import sample as sample
"""

import ast
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any


def attach(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """A package's `__getattr__` and `__dir__` (PEP 562), of the names in its stub.

    Parameters
    ----------
    package, file : str
        Its `__name__` and `__file__`.
    """
    stub = ast.parse(Path(file).with_suffix(".pyi").read_text(encoding="utf-8"))
    places = {
        name.name: node.module
        for node in stub.body
        if isinstance(node, ast.ImportFrom) and node.module
        for name in node.names
    }

    def found(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(places[name]), name)

    return found, lambda: sorted(places)
