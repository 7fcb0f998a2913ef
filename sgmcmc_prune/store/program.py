"""A network as a program that needs none of its code: a file of `torch.export` (.pt2), or of ONNX (.onnx).

Both take any number of examples; a .pt2 file of a recurrent network takes sequences of the length in `about` alone, and
refuses others. Both hold what the network is (`store.network.About`) as JSON under the name "about".
"""

import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from sgmcmc_prune.errors import first_line
from sgmcmc_prune.settings import from_json
from sgmcmc_prune.store.files import atomic_path
from sgmcmc_prune.store.network import About

#: The endings of such files.
PROGRAMS = (".pt2", ".onnx")
#: What ONNX takes beside torch.
PACKAGES = ("onnx", "onnxscript", "onnxruntime")


class Program(nn.Module):
    """What was read from a file, called as a network is; it has no parameters that torch could train."""

    def __init__(self, call: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._call = lambda x: call(x)  # no submodule: what torch exports knows no modes

    def forward(self, x: Tensor) -> Tensor:
        """Map examples to outputs."""
        return self._call(x)


def why_no_onnx() -> str:
    """Which packages are missing for ONNX; empty if none is."""
    absent = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    return f"{', '.join(absent)} not installed" if absent else ""


def require_program(path: Path) -> None:
    """ValueError unless a program can be written to this path here."""
    if _is_onnx(path) and (reason := why_no_onnx()):
        raise ValueError(f'{path} is to be ONNX, and {reason}; pip install ".[onnx]", or write .pt2 or .safetensors')


def write_program(path: Path, network: nn.Module, about: About, dtype: torch.dtype = torch.float32) -> None:
    """Write a network as a program; the file appears complete or not at all.

    Parameters
    ----------
    path : Path
        With the ending .pt2 or .onnx.
    network : nn.Module
        On the CPU, in evaluation mode.
    about : About
        Its `input_shape` is that of one example.
    dtype : torch.dtype
        Of the inputs.

    Raises
    ------
    ValueError
        If a package is missing, or the network does something that the format has not.
    """
    require_program(path)
    said = json.dumps(asdict(about))
    try:
        with _quiet():
            traced = _traced(network, torch.zeros(2, *about.input_shape, dtype=dtype))
            content = _as_onnx(traced, said) if _is_onnx(path) else _as_torch(traced, said)
    except Exception as error:  # both refuse what they cannot write with errors of many kinds
        raise ValueError(
            f"{type(network).__name__} cannot be written as {path.suffix} ({first_line(error)}); write .safetensors"
        ) from error
    with atomic_path(path) as partial:
        partial.write_bytes(content)


def _is_onnx(path: Path) -> bool:
    return path.suffix.lower() == ".onnx"


def _traced(network: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    """Of any number of examples; a file holds the one that it was traced with, so it is none of the data."""
    program = torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # the paths of this machine
    return program


def _as_torch(traced: torch.export.ExportedProgram, said: str) -> bytes:
    file = io.BytesIO()
    torch.export.save(traced, file, extra_files={"about": said})
    return file.getvalue()


def _as_onnx(traced: torch.export.ExportedProgram, said: str) -> bytes:
    program = torch.onnx.export(traced, (), dynamo=True, verbose=False)
    assert program is not None
    program.model.metadata_props["about"] = said
    content: bytes = program.model_proto.SerializeToString()
    return content


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch and ONNX say of their own steps."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def read_program(path: Path) -> tuple[Program, About]:
    """Read what `write_program` wrote. A .pt2 file is torch's own, and to be trusted as where it comes from.

    Returns
    -------
    model : Program
    about : About

    Raises
    ------
    ValueError
        If the file is none, is damaged, or was written by something else.
    """
    if not path.is_file():
        raise ValueError(f"{path} is no file; sgmcmc-prune export RUN {path} writes one")
    require_program(path)
    try:
        with _quiet():  # torch logs its own traceback
            call, said = onnx_runtime(path) if _is_onnx(path) else _torch_program(path)
    except Exception as error:  # a damaged file can make the readers raise nearly anything
        raise ValueError(
            f"{path} is no whole program ({path.stat().st_size:,} bytes; {type(error).__name__}); write it again with "
            f"sgmcmc-prune export RUN {path}"
        ) from error
    if not said:
        raise ValueError(f"{path} is a program that sgmcmc-prune export has not written: it does not say what it is")
    return Program(call), from_json(json.loads(said), About, f"about in {path}")


def _torch_program(path: Path) -> tuple[Callable[[Tensor], Tensor], str]:
    """A file's network, and what it says of itself."""
    files = {"about": ""}
    call = torch.export.load(path, extra_files=files).module()
    return call, files["about"]


def onnx_runtime(path: Path) -> tuple[Callable[[Tensor], Tensor], str]:
    """A file's network in ONNX Runtime, with as many threads as torch has, and what it says of itself."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    said = session.get_modelmeta().custom_metadata_map.get("about", "")
    return lambda x: torch.from_numpy(session.run(None, {name: x.numpy()})[0]), said
