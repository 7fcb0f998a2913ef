"""Batched chains are the chains of a loop: gradients, whole runs, and what cannot be batched."""

import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from lives import start_resume
from small_run import assert_same_run, new_run, small
from torch import Tensor, nn

from sgmcmc_prune import likelihoods
from sgmcmc_prune.chains import execution, memory
from sgmcmc_prune.chains.batched import BatchedChains
from sgmcmc_prune.chains.chain import Chain
from sgmcmc_prune.chains.schedules import Cyclical
from sgmcmc_prune.data.batches import MinibatchStream
from sgmcmc_prune.errors import Interrupted, RunError
from sgmcmc_prune.models.normalisation import FilterResponseNorm
from sgmcmc_prune.preconditioners import RMSprop
from sgmcmc_prune.priors import SpikeSlab
from sgmcmc_prune.priors.em import EM
from sgmcmc_prune.priors.em_settings import EMSettings
from sgmcmc_prune.run.config import RunConfig
from sgmcmc_prune.run.main import resume, run
from sgmcmc_prune.samplers import SGHMC
from sgmcmc_prune.store.files import read_json
from sgmcmc_prune.store.weights import WeightStore

NETWORKS = {
    "mlp": lambda: nn.Sequential(nn.Flatten(), nn.Linear(48, 7), nn.Tanh(), nn.Linear(7, 3)),
    "convolution": lambda: nn.Sequential(
        nn.Conv2d(3, 5, 3), FilterResponseNorm(5), nn.ReLU(), nn.Flatten(), nn.Linear(20, 3)
    ),
    "group norm": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(16, 3)),
}


def data(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(40, 3, 4, 4, generator=generator).to(dtype), torch.randint(3, (40,), generator=generator)


def chain(network: str, index: int, dtype: torch.dtype = torch.float64, burn_in: int = 8) -> Chain:
    torch.manual_seed(index)
    model = NETWORKS[network]().to(dtype)
    prior = SpikeSlab(dict(model.named_parameters()))
    sampler = SGHMC(
        model.named_parameters(), lr=0.01, num_data=40, prior=prior, preconditioner=RMSprop(), seed=3, chain=index
    )
    schedule = Cyclical(0.02, 0.02, 0.01, 0.9, 1.0, burn_in=burn_in, cycles=2, explore=3, sample=3)
    em = EM(EMSettings(every=4), prior)
    stream = MinibatchStream(*data(dtype), 8, 0, index)
    return Chain(index, model, sampler, schedule, stream, likelihoods.categorical, em)


def state(chain: Chain) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in chain.model.state_dict().items()}


def prior_state(chain: Chain) -> dict[str, dict[str, Any]]:
    """What the prior learned and drew, by layer."""
    assert chain.prior is not None
    return chain.prior.state_dict()["layers"]


@pytest.mark.parametrize("network", NETWORKS)
def test_batched_chains_are_the_chains_of_a_loop(network: str) -> None:
    """In double precision, over 20 steps, which amplify rounding."""
    alone, together = ([chain(network, k) for k in range(3)] for _ in range(2))
    batched = BatchedChains(together)
    while not together[0].finished:
        batched.advance()
    for one, other in zip(alone, together, strict=True):
        while not one.finished:
            one.advance()
        assert one.draws == other.draws > 0
        assert one.loss == pytest.approx(other.loss, rel=1e-7)
        torch.testing.assert_close(state(one), state(other), rtol=1e-7, atol=1e-8)
        torch.testing.assert_close(prior_state(one), prior_state(other), rtol=1e-7, atol=1e-8)
    first, second = (next(iter(c.parameters.values())) for c in together[:2])
    assert not torch.equal(first, second)


def test_a_loaded_state_stays_in_the_stack() -> None:
    """A resume copies into the views; if it replaced them, the stacks would hold the weights of before."""
    source, chains = chain("mlp", 0), [chain("mlp", k) for k in range(2)]
    for _ in range(5):
        source.advance()
    batched = BatchedChains(chains)
    chains[0].load_state_dict(source.state_dict())
    for name, stack in batched.networks.stacked.items():
        assert torch.equal(stack[0], source.model.state_dict()[name])


def test_one_diverged_chain_stops_all_before_any_moves() -> None:
    chains = [chain("mlp", k) for k in range(2)]
    batched = BatchedChains(chains)
    with torch.no_grad():
        next(iter(chains[1].parameters.values())).fill_(torch.nan)
    before = state(chains[0])
    with pytest.raises(RunError, match="chain 1 diverged at step 0"):
        batched.advance()
    torch.testing.assert_close(state(chains[0]), before, rtol=0, atol=0)


@pytest.mark.parametrize(("layer", "reason"), [(nn.BatchNorm2d(3), "batch normalisation"), (nn.Dropout2d(), "dropout")])
def test_what_cannot_be_batched_is_named(monkeypatch: pytest.MonkeyPatch, layer: nn.Module, reason: str) -> None:
    monkeypatch.setitem(NETWORKS, "bad", lambda: nn.Sequential(layer, nn.Flatten(), nn.Linear(48, 3)))
    with pytest.raises(ValueError, match=f"'0' is {reason}"):
        BatchedChains([chain("bad", 0)])
    assert "batched" not in execution.seconds_per_step(lambda k: chain("bad", k, burn_in=10**6), 2)


class TestMemory:
    def test_the_estimate_is_what_a_chain_holds(self) -> None:
        one = chain("convolution", 0, torch.float32)
        while not one.finished:
            one.advance()
        held = [*one.parameters.values(), *(p.grad for p in one.parameters.values() if p.grad is not None)]
        for _, _, values, _ in one.sampler.named_states():
            held += [v for v in values.values() if isinstance(v, Tensor)]
        for average in (*one.inclusion.values(), *one.moments.values()):
            found = average.state_dict()
            held += [v for v in (*found.values(), *found.get("sums", {}).values()) if isinstance(v, Tensor)]
        for layer in one.prior.layers.values():  # type: ignore[union-attr]
            held += [layer.held, layer.alive]
        assert memory.chain_bytes(one) == sum(x.numel() * x.element_size() for x in held)

    def test_more_chains_than_memory_are_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        one = chain("mlp", 0)
        monkeypatch.setattr(memory, "free_bytes", lambda device: 2 * memory.chain_bytes(one))
        memory.require_memory(one, 2)
        with pytest.raises(ValueError, match=r"at once: 3, which need .* on cpu .* execution 'loop'"):
            memory.require_memory(one, 3)

    def test_masks_that_memory_could_not_hold_are_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        one = chain("mlp", 0)
        weights = sum(one.parameters[name].numel() for name in one.moments)
        assert memory.evaluation_bytes(one, 3, 16) == (memory.READ + 3 * (memory.ERRORS + 16 / 8)) * weights
        monkeypatch.setattr(memory, "free_bytes", lambda device: memory.evaluation_bytes(one, 3, 16))
        memory.require_evaluation_memory(one, 3, 16)
        with pytest.raises(ValueError, match=r"finished draws of 4 chains need .* fewer chains, a"):
            memory.require_evaluation_memory(one, 4, 16)

    def test_ranks_of_one_machine_hold_an_evaluation_each(self, monkeypatch: pytest.MonkeyPatch) -> None:
        one = chain("mlp", 0)
        alone, shared = memory.evaluation_bytes(one, 3, 16), memory.evaluation_bytes(one, 3, 16, processes=8, here=4)
        weights = sum(one.parameters[name].numel() for name in one.moments)
        assert shared == 4 * (alone - 3 * (16 - 2) / 8 * weights)  # each makes the masks of two rows
        monkeypatch.setattr(memory, "free_bytes", lambda device: shared - 1)
        memory.require_evaluation_memory(one, 3, 16)
        with pytest.raises(ValueError, match=r"3 chains in 4 processes of one machine need .* or processes"):
            memory.require_evaluation_memory(one, 3, 16, 8, 4)

    def test_free_memory_is_positive_where_known(self) -> None:
        assert memory.free_bytes(torch.device("cpu")) is None or memory.free_bytes(torch.device("cpu")) > 0  # type: ignore[operator]


@pytest.mark.slow
def test_a_compiled_network_gives_the_same_chain() -> None:
    plain, compiled = chain("mlp", 0), chain("mlp", 0)
    compiled.network = torch.compile(compiled.model)  # type: ignore[assignment]
    for _ in range(10):
        plain.advance()
        compiled.advance()
    torch.testing.assert_close(state(plain), state(compiled), rtol=1e-9, atol=1e-11)


def test_bfloat16_passes_keep_weights_and_loss_in_full_precision() -> None:
    one = chain("mlp", 0, torch.float32)
    one.precision = "bfloat16"
    seen = []
    one.model.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    one.advance()
    assert seen == [torch.bfloat16]
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in one.parameters.values() if p.grad is not None)


def batched_run() -> RunConfig:
    """Chains that save every few steps: there is a checkpoint before the last one."""
    changes = {"prune.in_chain": ("inclusion_probability", "random"), "prune.targets": (0.8,)}
    return small(execution="batched", checkpoint_seconds=0.0, **changes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("batched") / "whole"
    run(batched_run(), out, progress=False)
    return out


class TestRun:
    """A run of the command's main job, in common steps."""

    def test_it_is_the_run_of_a_loop_to_rounding(self, tmp_path: Path) -> None:
        """The dense draws, early: rounding grows along a chain, and in a mask it can break a tie."""
        short = {"prune.in_chain": (), "schedule.burn_in": 2.0, "schedule.cycles": 1}
        for mode in ("loop", "batched"):
            run(small(execution=mode, **short), tmp_path / mode, progress=False)
        for index in range(2):
            one, other = (WeightStore(tmp_path / mode / "draws").load(index, 0) for mode in ("loop", "batched"))
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
        assert read_json(tmp_path / "batched" / "run.json")["execution"] == {"mode": "batched"}

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
    def test_a_killed_run_resumes_to_the_same_bits(self, whole: Path, tmp_path: Path, number: signal.Signals) -> None:
        out = new_run(batched_run(), tmp_path / "killed")
        life = start_resume(out)
        while len(list(out.glob("checkpoints/*.safetensors"))) < 2 and life.alive:
            time.sleep(0.01)
        life.send(number)
        life.end()
        assert not (out / "metrics.json").exists(), "the run ended before it was killed"
        resume(out, progress=False)
        assert_same_run(whole, out)

    def test_a_kill_while_checkpoints_are_saved_leaves_a_common_step(
        self, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The last chain is one checkpoint behind; the others go back to it."""
        out = new_run(batched_run(), tmp_path / "torn")

        def killed(*arguments: object) -> None:
            raise Interrupted

        with monkeypatch.context() as patch:
            patch.setattr("sgmcmc_prune.run.main.evaluate", killed)
            with pytest.raises(Interrupted):
                resume(out, progress=False)
        newest = out / "forks" / "random" / "checkpoints" / "chain1.safetensors"
        newest.with_name("chain1.safetensors.1").replace(newest)
        resume(out, progress=False)
        assert_same_run(whole, out)

    def test_auto_writes_down_its_choice_and_keeps_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        out, config = tmp_path / "auto", small(execution="auto", **{"prune.in_chain": ()})
        monkeypatch.setattr(execution, "seconds_per_step", lambda make, chains: {"loop": 0.02, "batched": 0.01})
        run(config, out, progress=False)
        chosen = read_json(out / "run.json")["execution"]
        assert chosen["mode"] == "batched"
        assert chosen["predicted_seconds"]["loop"] == 2 * chosen["predicted_seconds"]["batched"]
        monkeypatch.setattr(execution, "seconds_per_step", lambda make, chains: {"loop": 0.01})
        resume(out, progress=False)
        assert read_json(out / "run.json")["execution"] == chosen

    def test_what_cannot_be_batched_is_refused_before_anything_is_made(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("sgmcmc_prune.machine.bfloat16.why_slow", lambda device: "")
        with pytest.raises(ValueError, match="keep 2"):
            small(execution="batched", keep_checkpoints=1)
        with pytest.raises(ValueError, match=r"execution 'batched' cannot run here: .* bfloat16"):
            run(small(execution="batched", precision="bfloat16"), tmp_path / "out", progress=False)
        assert not (tmp_path / "out").exists()


class Follows(nn.Module):
    """A buffer that every pass changes, besides batch normalisation."""

    def __init__(self, input_shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        self.layer = nn.Linear(784, num_classes)
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        self.scale = 0.9 * self.scale + 0.1 * x.std()
        return self.layer(x.flatten(1) / self.scale)


def test_networks_whose_buffers_move_are_not_batched(tmp_path: Path) -> None:
    config = small(execution="batched", **{"model.name": "test_batched_chains:Follows", "prune.in_chain": ()})
    with pytest.raises(ValueError, match="every pass changes the buffer 'scale', which batched networks do not keep"):
        run(config, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()
