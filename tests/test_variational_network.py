"""Conversion to variational networks: structure, exact draws, limits, gradients; masked equals physically pruned."""

import math
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from sgmcmc_prune.baselines.variational import (
    ContinuousSpike,
    Structured,
    VariationalNetwork,
    bayesianise,
    jantre_inclusion,
    mean_field,
    ss_ghs,
    ss_gl,
    ss_ig,
    svbnn,
    svbnn_inclusion,
)
from sgmcmc_prune.baselines.variational.factors import Normal, RelaxedNormal
from sgmcmc_prune.baselines.variational.gates import Gate
from sgmcmc_prune.baselines.variational.layers import VariationalConv2d, VariationalLinear
from sgmcmc_prune.models import MLP, LeNet
from sgmcmc_prune.predictive.flops import multiply_adds
from sgmcmc_prune.pruning.shrink import shrink

FAMILIES = {
    "mean_field": mean_field(),
    "ss_ig": ss_ig(),
    "ss_gl": ss_gl(),
    "ss_ghs": ss_ghs(),
    "ss_ghs centred": ss_ghs(centred=True),
    "ss_ghs learned": ss_ghs(regulariser="learned"),
    "svbnn": svbnn(),
    "svbnn relaxed": svbnn(relaxed=True),
    "inputs": Structured(gates="input"),
    "continuous spike": ContinuousSpike(),
}


class Residual(nn.Module):
    """Convolution, one residual block with normalisation and padding, pooling, head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv1, self.norm1 = nn.Conv2d(4, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.conv2, self.norm2 = nn.Conv2d(6, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.stem_norm(self.stem(x)))
        x = F.silu(x + self.norm2(self.conv2(F.silu(self.norm1(self.conv1(x))))))
        return self.head(x.mean((2, 3)))


class Flattened(nn.Module):
    """A convolution read by a linear layer through sigmoid, pooling and `view`: a channel has four columns."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5), nn.Linear(20, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.norm(self.conv(x)).sigmoid(), 4)
        return self.head(x.view(x.size(0), -1))


MODELS = {"residual": (Residual, (3, 8, 8)), "flattened": (Flattened, (3, 8, 8))}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def small() -> MLP:
    return MLP((6,), 3, (5, 4), activation="tanh")


def make_random(model: nn.Module) -> nn.Module:
    """Give normalisation layers statistics and affine parameters that matter."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value in (module.weight, module.running_var):
                nn.init.uniform_(value, 0.5, 1.5)
            for value in (module.bias, module.running_mean):
                nn.init.normal_(value)
    return model


def gates_of(network: VariationalNetwork) -> list[Gate]:
    return [module for module in network.modules() if isinstance(module, Gate)]


def close_some(network: VariationalNetwork) -> None:
    """Decide every gate (logit +-12, every other one closed), and take the noise away."""
    with torch.no_grad():
        for gate in gates_of(network):
            gate.logits.fill_(30.0)
            gate.logits[::2] = -30.0
        for name, parameter in network.named_parameters():
            if name.endswith("log_std"):
                parameter.fill_(-30.0)


def test_only_removable_nodes_are_gated() -> None:
    _, groups = bayesianise(small(), ss_ig()).log_odds()
    assert {name: g.num_groups for name, g in groups.items()} == {"layers.0.weight": 5, "layers.1.weight": 4}
    _, groups = bayesianise(Residual(), ss_ig()).log_odds()
    assert list(groups) == ["conv1.weight"]  # the stem and conv2 end in the residual stream
    _, groups = bayesianise(LeNet((1, 28, 28), 10), ss_ig()).log_odds()
    assert list(groups) == ["conv1.weight", "conv2.weight", "conv3.weight", "fc1.weight"]
    _, groups = bayesianise(small(), Structured(gates="input")).log_odds()
    assert (list(groups), groups["layers.0.weight"].kind) == (["layers.0.weight"], "input")


@pytest.mark.parametrize("name", FAMILIES)
def test_the_model_is_left_alone_and_every_parameter_gets_a_gradient(name: str) -> None:
    model = small()
    before = {n: p.clone() for n, p in model.named_parameters()}
    network = bayesianise(model, FAMILIES[name])
    (network(torch.randn(7, 6)).square().mean() + network.kl() / 100).backward()
    assert all(torch.equal(before[n], p) and p.requires_grad for n, p in model.named_parameters())
    missing = [n for n, p in network.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    assert missing == []
    assert network.draw().keys() == before.keys()


@pytest.mark.parametrize("name", ["ss_ig", "ss_gl", "ss_ghs"])
@pytest.mark.parametrize("model", MODELS)
def test_masked_equals_variational_equals_physically_pruned(name: str, model: str) -> None:
    make, shape = MODELS[model]
    network = bayesianise(make_random(make()), FAMILIES[name])
    close_some(network)
    network.eval()
    inputs = torch.randn(3, *shape)
    plain = network.plain.eval()
    masked = functional_call(plain, network.draw("median", sampled=False), (inputs,))
    assert torch.allclose(network(inputs), masked, atol=1e-5)
    plain.load_state_dict(plain.state_dict() | network.draw("median", sampled=False))
    smaller = shrink(plain, {}, inputs).model
    assert torch.allclose(smaller(inputs), masked, atol=1e-5)
    assert multiply_adds(smaller, inputs) < multiply_adds(plain, inputs)
    assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in plain.parameters())


@pytest.mark.parametrize("name", FAMILIES)
def test_sharing_moments_changes_no_gradient(name: str) -> None:
    network, x = bayesianise(make_random(small()), FAMILIES[name]), torch.randn(7, 6)
    gradients = []
    for compute in (network.outputs_and_kl, lambda x: (network(x), network._divergence())):
        torch.manual_seed(0)
        network.zero_grad()
        outputs, divergence = compute(x)
        (outputs.square().mean() + divergence / 100).backward()
        gradients.append([p.grad for p in network.parameters()])
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in zip(*gradients, strict=True))
    assert not any(getattr(module, "sums", None) for module in network.modules())


def test_an_empty_layer_still_predicts() -> None:
    network = bayesianise(small(), ss_ig())
    for gate in gates_of(network):
        gate.logits.data.fill_(-12)
    plain = network.plain
    plain.load_state_dict(network.draw("median"))
    inputs = torch.randn(4, 6)
    assert torch.allclose(shrink(plain, {}, inputs).model(inputs), plain(inputs), atol=1e-6)
    assert torch.allclose(plain(inputs)[0], plain(inputs)[1])
    (network(inputs).sum() + network.kl()).backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())


def test_open_gates_are_plain_mean_field() -> None:
    model = small()
    gated, plain = bayesianise(model, ss_ig(inclusion=1 - 1e-7, start=1 - 1e-7)), bayesianise(model, mean_field())
    for gate in gates_of(gated):
        gate.logits.data.fill_(30.0)
    assert float(gated.kl().detach()) == pytest.approx(float(plain.kl().detach()), rel=1e-6)
    generators = [torch.Generator().manual_seed(1) for _ in range(2)]
    first, second = (n.draw("median", generator=g) for n, g in zip((gated, plain), generators, strict=True))
    assert all(torch.equal(first[name], second[name]) for name in second)


def test_slab_is_weighted_by_the_gate_and_the_scale_is_not() -> None:
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Tanh(), nn.Linear(1, 1, bias=False))
    nn.init.constant_(model[0].weight, 0.4)
    family = {"prior_std": 0.7, "inclusion": 0.01, "start": 0.3, "initial_std": 0.2}
    assert float(bayesianise(model, ss_ig(**family)).units[0].kl().detach()) == pytest.approx(1.0648, abs=5e-5)
    lasso = bayesianise(model, ss_gl(**family))
    assert float(lasso.units[0].kl().detach()) == pytest.approx(1.0648, abs=5e-5)
    units = sum(float(unit.kl().detach()) for unit in lasso.units)
    assert float(lasso.kl().detach()) == pytest.approx(units + float(lasso.shared.kl().detach()), abs=1e-4)


def test_no_noise_is_the_deterministic_network() -> None:
    model = small()
    network = bayesianise(model, mean_field(initial_std=1e-9))
    inputs = torch.randn(4, 6)
    assert torch.allclose(network(inputs), model(inputs), atol=1e-6)


def test_group_lasso_with_unit_scales_is_ss_ig() -> None:
    model = small()
    lasso, gaussian = bayesianise(model, ss_gl()), bayesianise(model, ss_ig())
    lasso.shared.variance.log_std.data.fill_(-30)
    assert float(lasso.kl().detach()) - float(lasso.shared.kl().detach()) == pytest.approx(
        float(gaussian.kl().detach()), rel=1e-5
    )
    generators = [torch.Generator().manual_seed(1) for _ in range(2)]
    first, second = (n.draw("mean", False, g) for n, g in zip((lasso, gaussian), generators, strict=True))
    assert all(torch.allclose(first[name], second[name]) for name in second)


@pytest.mark.parametrize(("regulariser", "expected"), [(1e8, 1.7), (1e-8, 1e-8)])
def test_regulariser_limits(regulariser: float, expected: float) -> None:
    # c -> infinity: the unregularised scale s; c -> 0: the constant c.
    network = bayesianise(small(), ss_ghs(regulariser=regulariser))
    network.shared.half_cauchy.gamma.mean.data[:-1] = 2 * math.log(1.7)
    network.shared.resample(sampled=False)
    assert network.shared.drawn["layers.0"].tolist() == pytest.approx([expected] * 5, rel=1e-5)


def covariance_of_outputs(layer: nn.Module, x: Tensor, draws: int) -> Tensor:
    """Covariance of all outputs for one input under `layer`'s noise."""
    outputs = layer(x.expand(draws, *x.shape[1:])).flatten(1).detach()
    return torch.cov(outputs.T)


def test_layers_draw_weights_and_not_outputs() -> None:
    # The convolution's noise must be shared between positions, as weights are. 2,000 draws; entries within 6 sd.
    source = nn.Conv2d(2, 2, 2)
    layer = VariationalConv2d(Normal(source.weight, 0.3), Normal(source.bias, 0.2), source)
    x = torch.randn(1, 2, 3, 3)
    patches = F.unfold(x, 2)[0]  # (8, 4): columns are positions
    exact = torch.block_diag(*[0.09 * patches.T @ patches + 0.04] * 2).double()
    # Signs are drawn per example but the deviations per batch: average over batches of one.
    outputs = torch.stack([layer(x).detach().flatten() for _ in range(2000)]).double()
    spread = (exact.diag()[:, None] * exact.diag() + exact.square()).sqrt() / math.sqrt(2000)
    assert float(((torch.cov(outputs.T) - exact).abs() / spread).max()) < 6


def test_local_reparametrisation_has_the_moments_of_weight_draws() -> None:
    source = nn.Linear(3, 2)
    layer = VariationalLinear(Normal(source.weight, 0.3), Normal(source.bias, 0.2))
    x = torch.randn(1, 3)
    exact = torch.eye(2) * (0.09 * float(x.square().sum()) + 0.04)
    found = covariance_of_outputs(layer, x, 20_000)
    assert float((found - exact).abs().max()) < 6 * float(exact[0, 0]) * math.sqrt(2 / 20_000)


def test_relaxed_gates_have_one_draw_per_batch_and_the_slope_of_their_relaxation() -> None:
    network = bayesianise(nn.Sequential(nn.Linear(2, 2)), svbnn(start=0.3, initial_std=0.5, relaxed=True))
    one, other = network(torch.ones(2, 2))
    assert torch.equal(one, other)
    factor = RelaxedNormal(torch.full((4000,), 2.0), 1e-6, 0.1, 0.3)
    factor.relaxed().sum().backward()
    # d/d logit of E y, y = sigmoid((logit + L) / T), times mu: by quadrature over the quantiles of L.
    logistic = torch.linspace(5e-6, 1 - 5e-6, 100_000, dtype=torch.float64).logit()
    y = ((math.log(0.3 / 0.7) + logistic) / 0.5).sigmoid()
    slopes = 2.0 * y * (1 - y) / 0.5
    assert factor.logits.grad is not None
    assert float(factor.logits.grad.mean()) == pytest.approx(
        float(slopes.mean()), abs=5 * float(slopes.std()) / 4000**0.5
    )


def test_only_gates_on_weights_can_be_relaxed() -> None:
    with pytest.raises(ValueError, match="gates='weight'"):
        Structured(gates="node", relaxed=True)


@pytest.mark.parametrize("relaxed", [False, True])
def test_moments_of_gated_weights(relaxed: bool) -> None:
    network = bayesianise(nn.Sequential(nn.Linear(2, 2)), svbnn(start=0.3, initial_std=0.5, relaxed=relaxed))
    factor = next(network.units[0].factors())[1]
    draw = factor.relaxed if isinstance(factor, RelaxedNormal) else factor.draw
    draws = torch.stack([draw() for _ in range(5_000)]).detach()
    mean, variance = (m.detach() for m in factor.moments())
    assert float(((draws.mean(0) - mean) / (variance / 5_000).sqrt()).abs().max()) < 5
    assert draws.var(0).tolist() == [pytest.approx(row, rel=0.12) for row in variance.tolist()]


def test_published_prior_inclusion() -> None:
    # Values that the authors' runs logged.
    assert jantre_inclusion([784, 400, 400, 10], 60_000) == pytest.approx([0.0015411, 0.0023438], rel=1e-4)
    assert jantre_inclusion([800, 800, 500, 10], 60_000) == pytest.approx([0.00074765, 0.00119625], rel=1e-4)
    assert svbnn_inclusion([784, 400, 400, 10], 60_000) == pytest.approx(5.637e-8, rel=1e-3)


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if x.sum() > 0 else x


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.layer(x).relu())


@pytest.mark.parametrize(
    ("model", "family", "message"),
    [
        (nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)), mean_field(), "'1' is a LayerNorm.*supported are Linear"),
        (nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular")), mean_field(), "'0' is a Conv2d"),
        (Branching(), mean_field(), "must not branch on values"),
        (Twice(), mean_field(), "used more than once"),
        (nn.Sequential(nn.ReLU()), mean_field(), "no layer that can be converted"),
        (nn.Sequential(nn.Linear(2, 2)), ss_ig(), "found 0 layers whose nodes can be gated.*'output'"),
        (Residual(), ss_ghs(centred=True), "undoes the scale"),
        (small(), ss_ig(inclusion={"layers.0": 0.1}), "no value for layer 'layers.1'"),
    ],
)
def test_what_cannot_be_converted_is_named(model: nn.Module, family: Structured, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bayesianise(model, family)


@pytest.mark.parametrize(
    "settings",
    [
        {"inclusion": 0.0},
        {"inclusion": {"a": 1.0}},
        {"inclusion": "0.1"},
        {"start": 1.0},
        {"gates": "all"},
        {"scale": "ridge"},
        {"centred": True},
    ],
)
def test_bad_families_are_refused(settings: dict) -> None:
    with pytest.raises(ValueError, match=r"inside \(0, 1\)|choose|set scale"):
        Structured(**settings)


def test_families_import_with_torch_and_numpy_alone() -> None:
    absent = ("zarr", "xarray", "arviz_base", "matplotlib", "tyro", "tqdm", "safetensors", "scipy", "pandas", "ivon")
    code = (
        f"import sys\nfor name in {absent!r}: sys.modules[name] = None\nimport sgmcmc_prune.baselines.variational.ivon"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
