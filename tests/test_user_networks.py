"""A user's own network: `view` after a convolution, three-dimensional weights, prints, dropout, a fixed reshape."""

import json
import math
from pathlib import Path

import pytest
import torch
from small_run import assert_same_run, new_run, small
from torch import Tensor, nn

from sgmcmc_prune.run.config import NetworkChoice
from sgmcmc_prune.run.export import export, table
from sgmcmc_prune.run.main import resume, run
from sgmcmc_prune.run.run import Run
from sgmcmc_prune.store.network import load_network


class Viewing(nn.Module):
    """The classic: a convolution, then `view`."""

    def __init__(self, input_shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(input_shape[0], 4, 7, stride=7)
        self.fc = nn.Linear(64, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits; the number of features is written down."""
        return self.fc(self.conv(x).relu().view(-1, 64))


class Noisy(nn.Module):
    """Rows as a sequence, a one-dimensional convolution, dropout, and a print in every pass."""

    def __init__(self, input_shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(input_shape[1], 8, 5, stride=5)
        self.dropout = nn.Dropout(0.3)
        self.fc = nn.Linear(40, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        print("forward")
        return self.fc(self.dropout(self.conv(x.squeeze(1)).relu().flatten(1)))


QUICK = {"prune.targets": (0.5,), "prune.post_hoc": ("magnitude",), "prune.in_chain": ("magnitude",), "chains": 1}


def test_view_after_a_convolution_and_an_emptied_filter(tmp_path: Path) -> None:
    groups = {"prior.group": "filter", "prune.allocation": "layerwise"}
    config = small(**QUICK, **groups, **{"model.name": "test_user_networks:Viewing"})
    metrics = run(config, tmp_path / "out", progress=False)
    assert metrics["dense"]["accuracy"] > 0.3
    assert "parameters" not in metrics["pruned"][0]
    assert metrics["not_shrinkable"]


def test_prints_and_dropout_in_processes_are_the_run_of_a_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))  # where workers find this file
    for execution in ("loop", "processes"):
        own = {"model.name": "test_user_networks:Noisy", "chains": 2, "execution": execution}
        resume(new_run(small(**{**QUICK, **own}), tmp_path / execution))
    assert_same_run(tmp_path / "loop", tmp_path / "processes")
    assert any("dropout" in line for line in json.loads((tmp_path / "loop" / "run.json").read_text())["departures"])


def test_a_chain_with_dropout_goes_on_from_its_state_and_leaves_torch_alone() -> None:
    config = small(**QUICK, **{"model.name": "test_user_networks:Noisy"})
    run = Run(config)
    chains = [run.chain(0, run.schedule(None)) for _ in range(2)]
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    for _ in range(3):
        chains[0].advance()
    assert torch.equal(torch.random.get_rng_state(), before)
    chains[1].load_state_dict(chains[0].state_dict())
    torch.manual_seed(6)
    losses = [[chain.advance() and chain.loss for _ in range(3)] for chain in chains]
    assert losses[0] == losses[1]
    assert math.isfinite(losses[0][-1])


@pytest.mark.parametrize("stage", ["draws", "mask"])
def test_a_saved_chain_is_restored_where_its_network_lies(stage: str) -> None:
    # Checkpoints are read to the CPU. The device "meta" stands for a GPU: what is left behind cannot be mixed with it.
    config = small(**QUICK)
    run, criterion = Run(config), "magnitude" if stage == "mask" else None
    chain = run.chain(0, run.schedule(criterion), criterion)
    while not (chain.draws or chain.mask):
        chain.advance()
    state = chain.state_dict()
    chain.model.to("meta")
    for name, p in chain.model.named_parameters():
        chain.parameters[name] = p
    chain.load_position = lambda state: None  # type: ignore[method-assign]
    chain.load_state_dict(state)
    after = chain.state_dict()
    kept = [after["moments"], after["inclusion"]] if criterion is None else [after["mask"], after["pruner"]]
    tensors = [leaf for tree in kept for leaf in _leaves(tree)]
    assert tensors
    assert all(tensor.device.type == "meta" for tensor in tensors)


def _leaves(tree: object) -> list[Tensor]:
    if isinstance(tree, dict):
        return [leaf for value in tree.values() for leaf in _leaves(value)]
    return [tree] if isinstance(tree, Tensor) else []


class Rows(nn.Module):
    """The rows of a picture as a sequence, under a one-dimensional convolution."""

    def __init__(self, input_shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        self.filters, self.last = nn.Conv1d(input_shape[-1], 6, 5, stride=2), nn.Linear(6 * 12, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.filters(x.squeeze(1)).relu().flatten(1))


class Counted(Rows):
    """The same, with a length that cannot be traced."""

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.filters(x.squeeze(1)).relu().reshape(len(x), -1))


class Tied(nn.Module):
    """One weight in two layers, and a first layer that rests."""

    def __init__(self, input_shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        self.first = nn.Linear(math.prod(input_shape), 16).requires_grad_(False)
        self.inner, self.again, self.last = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, num_classes)
        self.again.weight = self.inner.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.again(self.inner(self.first(x.flatten(1)).relu()).relu()).relu())


@pytest.mark.parametrize("network", ["Rows", "Tied"])
@pytest.mark.parametrize("execution", ["loop", "batched"])
def test_networks_of_unusual_layers_run_to_the_table(tmp_path: Path, network: str, execution: str) -> None:
    settings = {"model.name": f"test_user_networks:{network}", "execution": execution}
    metrics = run(small(**QUICK, **settings), tmp_path / "out", progress=False)
    assert metrics["pruned"][0]["sparsity"] == pytest.approx(0.5, abs=0.01)
    assert metrics["dense"]["nll"] < 2.5  # ten classes: chance has 2.303
    assert 0.2 < metrics["diagnostics"]["configurational_temperature"] < 5
    assert bool(metrics["not_shrinkable"]) == (network == "Tied")


def test_a_network_that_cannot_be_cut_is_exported_masked_and_says_so(tmp_path: Path) -> None:
    config = small(**QUICK, **{"model.name": "test_user_networks:Counted", "keep_weight_draws": True})
    run(config, tmp_path / "run", progress=False)
    result = export(tmp_path / "run", tmp_path / "net.safetensors", NetworkChoice(), rounds=6)
    network, about = load_network(tmp_path / "net.safetensors", Counted)
    assert "cannot be traced" in result["not_cut"]
    assert about.origin.endswith(f"; masked, not cut: {result['not_cut']}")
    assert result["pruned"] == result["dense"]
    masked = [p == 0 for p in network.parameters() if p.dim() > 1]
    assert sum(int(p.sum()) for p in masked) == pytest.approx(0.5 * sum(p.numel() for p in masked), abs=1)
    text = table(result)
    assert f"The network is as large as the dense one, with zeros in place: {result['not_cut']}" in text
    assert "pruned / dense" not in text
