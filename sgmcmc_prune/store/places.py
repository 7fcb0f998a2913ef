"""Where a run keeps its files. Nobody else spells a path of a run."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class StagePlaces:
    """The files of one stage: the dense chains, or the fork of one criterion.

    Parameters
    ----------
    directory : Path
    """

    directory: Path

    @property
    def store(self) -> Path:
        """Draws in ArviZ's layout."""
        return self.directory / "posterior.zarr"

    @property
    def masks(self) -> Path:
        """Folder of the masks of its targets."""
        return self.directory / "masks"

    @property
    def draws(self) -> Path:
        """Folder of full weight draws."""
        return self.directory / "draws"

    @property
    def checkpoints(self) -> Path:
        """Folder of resume points."""
        return self.directory / "checkpoints"

    def checkpoint(self, chain: int) -> Path:
        """The newest resume point of a chain."""
        return self.checkpoints / f"chain{chain}.safetensors"

    def chain_lock(self, chain: int) -> Path:
        """What the process holds that takes a chain."""
        return self.checkpoints / f"chain{chain}.lock"

    def progress(self, chain: int) -> Path:
        """How a chain does while it runs, row by row; a folder of the same name has the events of TensorBoard."""
        return self.directory / "progress" / f"chain{chain}.csv"

    def mask(self, chain: int, target: float) -> Path:
        """The mask of one chain at one target, in a fork."""
        return self.masks / f"chain{chain}-{target:g}.safetensors"

    def inclusion(self, chain: int, cycle: int) -> Path:
        """Inclusion probabilities of one cycle (1, 2, ...) of a chain."""
        return self.directory / "inclusion" / f"chain{chain}-cycle{cycle}.safetensors"


@dataclass(frozen=True)
class RunPlaces(StagePlaces):
    """The files of a run, whose directory is that of its dense stage, too."""

    @property
    def config(self) -> Path:
        """The configuration: what makes a directory a run's."""
        return self.directory / "config.json"

    @property
    def info(self) -> Path:
        """Versions, machine, provenance, departures, status."""
        return self.directory / "run.json"

    @property
    def metrics(self) -> Path:
        """The table: what makes a run finished."""
        return self.directory / "metrics.json"

    @property
    def reliability(self) -> Path:
        """Bins of the dense reliability diagram."""
        return self.directory / "reliability.json"

    @property
    def rows(self) -> Path:
        """Folder of the rows of an evaluation that has not ended."""
        return self.directory / "rows"

    @property
    def lock(self) -> Path:
        """What whoever works in the directory holds."""
        return self.directory / ".lock"

    @property
    def report(self) -> Path:
        """Folder of the page and its figures."""
        return self.directory / "report"

    @property
    def control(self) -> StagePlaces:
        """The networks that were trained beside the chains."""
        return StagePlaces(self.directory / "control")

    def control_cost(self, chain: int) -> Path:
        """Gradient evaluations and seconds of one of them, at the end of each of its stages."""
        return self.control.directory / f"chain{chain}.json"

    def averages(self, chain: int) -> Path:
        """Averages over the dense draws of a chain, kept once the run is finished."""
        return self.directory / "averages" / f"chain{chain}.safetensors"

    def stage(self, criterion: str | None) -> StagePlaces:
        """The dense stage (None), or the fork of a criterion."""
        return self if criterion is None else StagePlaces(self.directory / "forks" / criterion)
