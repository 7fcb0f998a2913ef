"""Whole groups by joint evidence: exact where the posterior is Gaussian, and cut to the same network by `shrink`."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgmcmc_prune.likelihoods import categorical, gaussian
from sgmcmc_prune.models import build
from sgmcmc_prune.models.state import load_network_state, network_state
from sgmcmc_prune.models.vit import projections
from sgmcmc_prune.posterior import open_posterior
from sgmcmc_prune.priors import Gaussian
from sgmcmc_prune.priors.groups import GroupMap
from sgmcmc_prune.pruning import masks
from sgmcmc_prune.pruning.conditional import members
from sgmcmc_prune.pruning.conditional.gaussian import condition, eliminate, eliminate_groups
from sgmcmc_prune.pruning.conditional.members import members_of
from sgmcmc_prune.pruning.conditional.prune import Conditional, Pruned, by_evidence, follow, given, precision_of
from sgmcmc_prune.pruning.prunable import prunable
from sgmcmc_prune.pruning.shrink import shrink
from sgmcmc_prune.run.main import run
from tests.small_run import small


def gaussians(blocks: int = 3, size: int = 8) -> tuple[Tensor, Tensor]:
    """P (B, d, d) of correlated features, and modes (B, d)."""
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(blocks, 20, size, generator=generator, dtype=torch.float64)
    x[:, :, 1] += 2 * x[:, :, 0]
    y = torch.randn(blocks, 20, generator=generator, dtype=torch.float64)
    precision = x.transpose(1, 2) @ x / 0.3 + 0.7 * torch.eye(size, dtype=torch.float64)
    return precision, torch.linalg.solve(precision, torch.einsum("bni,bn->bi", x, y) / 0.3)


def test_groups_of_one_weight_are_single_weights() -> None:
    """The same costs at the same turns, where some may not go."""
    precision, w = gaussians()
    free = torch.ones(3, 8, dtype=torch.bool)
    free[2, :3] = False
    alone = eliminate(precision, w, free)
    groups = eliminate_groups(precision, w, torch.arange(8)[:, None], free, together=False)
    assert torch.equal(groups.turn, alone.turn)
    torch.testing.assert_close(groups.loss, alone.loss, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("together", [True, False])
def test_losses_of_the_turns_sum_to_the_loss_of_the_set(together: bool) -> None:
    """In every block, or over all blocks; the first turn is that of the group which is the cheapest by itself."""
    precision, w = gaussians()
    columns = torch.tensor([[0, 5], [1, 4], [2, 3]])  # the last two places belong to no group, as a bias
    free = torch.ones(1 if together else 3, 3, dtype=torch.bool)
    loss, turn = eliminate_groups(precision, w, columns, free, together)

    def cost(gone: Tensor) -> Tensor:
        """Delta U (B, or 1) of groups (B or 1, G)."""
        kept = torch.ones(3, 8, dtype=torch.bool)
        for b in range(3):
            kept[b, columns[gone.expand(3, 3)[b]].flatten()] = False
        found = condition(precision, w[None], kept).delta_u[0]
        return found.sum(0, keepdim=True) if together else found

    for k in (1, 2, 3):
        torch.testing.assert_close(loss.where(turn < k, 0.0).sum(1), cost(turn < k), rtol=1e-10, atol=1e-10)
    singles = torch.stack([cost(torch.arange(3).eq(g).expand(len(free), 3)) for g in range(3)], 1)
    assert torch.equal(singles.argmin(1), turn.argmin(1))


NOISE, VARIANCE = 0.5, 2.0


def two_layers(hidden: int = 5, outputs: int = 3) -> tuple[nn.Sequential, Tensor, Tensor, Tensor]:
    """Linear layers of which the second is at the mode of its posterior; inputs, targets, and hidden values."""
    generator = torch.Generator().manual_seed(2)
    model = nn.Sequential(nn.Linear(4, hidden), nn.Linear(hidden, outputs)).double()
    for p in model.parameters():
        p.data = torch.randn(p.shape, generator=generator, dtype=torch.float64)
    x = torch.randn(60, 4, generator=generator, dtype=torch.float64)
    y = torch.randn(60, outputs, generator=generator, dtype=torch.float64)
    a = F.pad(model[0](x).detach(), (0, 1), value=1.0)
    solution = ridge(a, y, torch.ones(hidden + 1, dtype=torch.bool))
    model[1].weight.data, model[1].bias.data = solution[:, :-1].contiguous(), solution[:, -1].contiguous()
    return model, x, y, a


def ridge(a: Tensor, y: Tensor, kept: Tensor) -> Tensor:
    """The mode of the posterior with some of the columns, (outputs, columns); zero elsewhere."""
    found, some = torch.zeros(y.shape[1], a.shape[1], dtype=torch.float64), a[:, kept]
    precision = some.T @ some / NOISE + torch.eye(some.shape[1], dtype=torch.float64) / VARIANCE
    found[:, kept] = torch.linalg.solve(precision, some.T @ y / NOISE).T
    return found


def potential(a: Tensor, y: Tensor, w: Tensor) -> float:
    return float((y - a @ w.T).square().sum() / (2 * NOISE) + w.square().sum() / (2 * VARIANCE))


def of_units(
    model: nn.Module, x: Tensor, y: Tensor, groups: dict[str, GroupMap], choose: list[Any], curvature: str = "kfac"
) -> list[Pruned]:
    found = follow(
        *(model, [network_state(model)], lambda stage, count: (x, y)),
        lambda weights: precision_of(Gaussian(VARIANCE), weights),
        *(choose, Conditional(curvature, {}, len(choose))),
        members=members_of(model, groups, x[:4]),
        likelihood=gaussian(NOISE),
        num_data=len(x),
    )
    return list(found)


@pytest.mark.parametrize("curvature", ["kfac", "ggn"])
def test_a_unit_goes_with_the_columns_that_read_it_and_the_next_layer_is_fitted_anew(curvature: str) -> None:
    """The mask is the enumeration's best of that size for one unit; weights are those of the smaller regression."""
    model, x, y, a = two_layers()
    groups = {"0.weight": GroupMap("node", (5, 4))}
    whole = potential(a, y, ridge(a, y, torch.ones(6, dtype=torch.bool)))
    keeps = [torch.arange(6) != unit for unit in range(5)]
    rises = [potential(a, y, ridge(a, y, kept)) - whole for kept in keeps]
    (found,) = of_units(model, x, y, groups, [by_evidence(0.2)], curvature)
    best = min(range(5), key=rises.__getitem__)
    assert found.mask.keys() == {"0.weight"}
    assert found.mask["0.weight"].all(1).tolist() == keeps[best][:5].tolist()
    moved, expected = found.draws[0], ridge(a, y, keeps[best])
    torch.testing.assert_close(moved["1.weight"], expected[:, :-1], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(moved["1.bias"], expected[:, -1], rtol=1e-9, atol=1e-9)
    assert bool((moved["1.weight"][:, best] == 0).all())
    kept = keeps[best][:5]
    assert torch.equal(moved["0.weight"][kept], model[0].weight[kept])
    assert bool((moved["0.weight"][~kept] == 0).all())
    assert torch.equal(moved["0.bias"], model[0].bias)


def test_the_cost_of_a_unit_is_the_rise_of_the_loss() -> None:
    """Delta U of each group alone against a regression without its columns, to 1e-9."""
    _, _, y, a = two_layers()
    w = ridge(a, y, torch.ones(6, dtype=torch.bool))
    precision = (a.T @ a / NOISE + torch.eye(6, dtype=torch.float64) / VARIANCE).expand(3, 6, 6).contiguous()
    for group in ([0], [3], [1, 4]):
        kept = torch.ones(6, dtype=torch.bool)
        kept[group] = False
        loss, _ = eliminate_groups(precision, w, torch.tensor([group]), torch.ones(1, 1, dtype=torch.bool), True)
        rise = potential(a, y, ridge(a, y, kept)) - potential(a, y, w)
        assert loss.item() == pytest.approx(rise, abs=1e-9)


def test_stages_keep_what_is_gone_and_fit_anew_what_is_left() -> None:
    model, x, y, a = two_layers()
    groups = {"0.weight": GroupMap("node", (5, 4))}
    first, last = of_units(model, x, y, groups, [by_evidence(s) for s in (0.2, 0.6)])
    kept = last.mask["0.weight"].all(1)
    assert int(kept.sum()) == 2
    assert bool((last.mask["0.weight"] <= first.mask["0.weight"]).all())
    (once,) = of_units(model, x, y, groups, [given(last.mask)])
    for draw in (last.draws[0], once.draws[0]):
        expected = ridge(a, y, torch.cat([kept, torch.ones(1, dtype=torch.bool)]))
        torch.testing.assert_close(draw["1.weight"], expected[:, :-1], rtol=1e-9, atol=1e-9)


def test_inputs_and_kernels_are_columns_of_the_layer_itself() -> None:
    """An input goes in all rows at once, a kernel in one; what is left of a row is moved."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(36, 2)).double()
    x = torch.randn(50, 3, 5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = torch.randn(50, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for kind, whole in (("input", (0, 2, 3)), ("kernel", (2, 3))):
        groups = {"0.weight": GroupMap(kind, (4, 3, 3, 3))}
        (found,) = of_units(model, x, y, groups, [by_evidence(0.34)])
        mask = found.mask["0.weight"]
        assert torch.equal(mask.sum(whole) > 0, mask.double().mean(whole) == 1), "whole groups"
        assert int((~mask).sum()) == 36, kind
        assert bool((found.draws[0]["0.weight"][~mask] == 0).all())
        assert not torch.equal(found.draws[0]["0.weight"][mask], model[0].weight[mask])
        assert torch.equal(found.draws[0]["2.weight"], model[2].weight)


def test_a_head_is_the_columns_of_a_projection_and_is_cut_whole() -> None:
    model = build("vit", (1, 8, 8), 3, seed=0, width=8, depth=1, heads=2, hidden=4, patch=4).double()
    ((name, heads),) = projections(model).items()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    x = torch.randn(30, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    groups = {name: GroupMap.heads(tuple(before[name].shape), heads)}
    (found,) = of_units(model, x, torch.randn(30, 3, dtype=torch.float64), groups, [by_evidence(0.5)])
    assert found.mask[name].all(0).sum() == 4
    changed = {n for n, p in before.items() if not torch.equal(p, found.draws[0][n])}
    assert changed == {name, name.replace("weight", "bias")}
    load_network_state(model, found.draws[0])
    cut = shrink(model, found.mask, x[:4]).model
    assert cut.get_parameter(name).shape == (8, 4)
    with torch.no_grad():
        torch.testing.assert_close(cut.eval()(x), model.eval()(x), rtol=0, atol=1e-10)


def lenet() -> tuple[nn.Module, dict[str, GroupMap], Tensor]:
    """A LeNet in float64, its units apart from the outputs, and images."""
    model = build("lenet", (1, 28, 28), 10, seed=0).double()
    outputs = list(prunable(model))[-1]
    groups = {n: GroupMap("filter", tuple(p.shape)) for n, p in prunable(model).items() if n != outputs}
    return model, groups, torch.randn(40, 1, 28, 28, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_masks_are_cut_and_the_cut_network_is_the_masked_one() -> None:
    """Convolutions, a flattening and linear layers: half of the units of each layer, in two stages."""
    model, groups, x = lenet()
    labels = torch.arange(40) % 10
    *_, last = follow(
        *(model, [network_state(model)], lambda stage, count: (x, labels)),
        lambda weights: precision_of(Gaussian(0.1), weights),
        *([by_evidence(0.25, "layerwise"), by_evidence(0.5, "layerwise")], Conditional("kfac", {}, 2)),
        members=members_of(model, groups, x[:4]),
        likelihood=categorical,
        num_data=40,
    )
    load_network_state(model, last.draws[0])
    small_network = shrink(model, last.mask, x[:4]).model
    units = [len(p) for n, p in prunable(small_network).items()]
    assert units[-1] == 10
    assert all(n == len(group.group_size) // 2 for n, group in zip(units, groups.values(), strict=False)), units
    with torch.no_grad():
        torch.testing.assert_close(small_network.eval()(x), model.eval()(x), rtol=0, atol=1e-10)


def test_columns_of_a_unit_are_those_that_its_values_reach() -> None:
    """Changing one unit changes the next layer's inputs at its columns alone, through pooling and flattening."""
    model, groups, x = lenet()
    found = members_of(model, groups, x[:4])
    weights = prunable(model)
    names = list(weights)
    assert [own.layer for own in found.values()] == names[1:]
    seen: list[Tensor] = []
    for name, own in found.items():
        reader = model.get_submodule(own.layer.rpartition(".")[0])
        hook = reader.register_forward_hook(lambda _, args, out: seen.append(args[0].detach().clone()))
        before = weights[name].data.clone()
        with torch.no_grad():
            model.eval()(x[:4])
            weights[name].data[1] += 1
            model(x[:4])
        weights[name].data, change = before, (seen[-1] != seen[-2]).any(0)
        hook.remove()
        inside = weights[own.layer][0, 0].numel()
        columns = change.flatten(1).any(1) if change.ndim > 1 else change
        reached = columns.nonzero().flatten()
        expected = (reached[:, None] * inside + torch.arange(inside)).flatten()
        assert set(expected.tolist()) <= set(own.columns[1].tolist())
        assert len(expected) > 0.5 * own.columns.shape[1]


class Residual(nn.Module):
    """Two layers whose outputs are added."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        return self.last(h + self.second(h))


class Twice(nn.Module):
    """Units that two layers read."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.left, self.right = nn.Linear(4, 4), nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.first(x))
        return torch.cat([self.left(h), self.right(h)], 1)


def grouped() -> nn.Module:
    return nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1, groups=2), nn.Flatten(), nn.Linear(4, 2))


@pytest.mark.parametrize(
    ("model", "names", "message"),
    [
        (Residual(), ["first.weight"], "'first.weight' .* added to other units"),
        (Twice(), ["first.weight"], r"'first.weight' .* read by 2 layers \(left, right\)"),
        (grouped(), ["0.weight"], "'0.weight' .* which mixes channels"),
        (grouped(), ["1.weight"], "'1.weight' .* grouped convolution"),
        (nn.Sequential(nn.Linear(4, 3)), ["0.weight"], "'0.weight' .* the network's own"),
    ],
)
def test_other_couplings_are_refused_in_one_line(model: nn.Module, names: list[str], message: str) -> None:
    weights = dict(model.named_parameters())
    groups = {name: GroupMap("node", tuple(weights[name].shape)) for name in names}
    x = torch.randn(3, 4, 1, 1) if isinstance(model, nn.Sequential) and len(model) > 1 else torch.randn(3, 4)
    with pytest.raises(ValueError, match=message) as error:
        members_of(model, groups, x)
    assert "\n" not in str(error.value)


def test_a_frozen_reader_is_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    model[1].requires_grad_(False)
    with pytest.raises(ValueError, match="read by '1', which is frozen"):
        members_of(model, {"0.weight": GroupMap("node", (3, 4))}, torch.randn(3, 4))


def test_groups_that_are_no_columns_are_refused() -> None:
    for index in (torch.tensor([[0, 1, 0, 1], [0, 0, 1, 1]]), torch.tensor([[0, 1, 1, 1]] * 2)):
        with pytest.raises(ValueError, match=r"'0\.weight' are not columns of all rows"):
            members_of(nn.Sequential(nn.Linear(4, 2)), {"0.weight": GroupMap.from_index(index)})


def narrow(input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    return nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(49, 8), nn.Tanh(), nn.Linear(8, num_classes))


@pytest.mark.parametrize(("group", "curvature"), [("node", "kfac"), ("filter", "gram"), ("input", "ggn")])
def test_a_run_prunes_the_groups_of_its_prior(group: str, curvature: str, tmp_path: Path) -> None:
    """Masks hold whole groups, and every draw has moved."""
    changes: dict[str, object] = {"prune.post_hoc": ("conditional",), "prune.in_chain": (), "prune.decisions": ()}
    changes |= {"prior.group": group, "model.name": f"{__name__}:narrow", "prune.targets": (0.5,)}
    changes |= {"prune.curvature": curvature, "prune.stages": 2}
    metrics = run(small(**changes), tmp_path / "run", progress=False)
    (row,) = metrics["pruned"]
    assert row["sparsity"] == pytest.approx(0.5, abs=0.02)
    posterior = open_posterior(tmp_path / "run")
    found = posterior.prune(0.5, criterion="conditional")
    dim = 0 if group == "input" else 1
    for mask in found.masks:
        assert all(torch.equal(kept.any(dim), kept.all(dim)) for kept in mask.values())
        assert masks.sparsity(mask) == pytest.approx(0.5, abs=0.02)
    dense, moved = posterior.draws[0], found.draws[0]
    read = "2.weight" if group == "input" else "4.weight"
    assert not torch.equal(moved[read][moved[read] != 0], dense[read][moved[read] != 0])


def test_too_many_rows_together_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three precisions of 6 x 6 numbers take 864 bytes."""
    model, x, y, _ = two_layers()
    groups = {"0.weight": GroupMap("node", (5, 4))}
    monkeypatch.setattr(members, "MAX_BYTES", 864)
    of_units(model, x, y, groups, [by_evidence(0.2)])
    monkeypatch.setattr(members, "MAX_BYTES", 863)
    with pytest.raises(ValueError, match=r"'0\.weight': the rows of '1\.weight' lose columns together"):
        of_units(model, x, y, groups, [by_evidence(0.2)])


def test_blocks_of_consecutive_weights_are_refused_for_groups(tmp_path: Path) -> None:
    changes: dict[str, object] = {"prune.post_hoc": ("conditional",), "prune.in_chain": ()}
    changes |= {"prior.group": "node", "model.name": f"{__name__}:narrow", "prune.curvature": "fisher"}
    with pytest.raises(ValueError, match=r"'2.weight': a node has weights in many blocks"):
        run(small(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()
