"""What one rank of `test_distributed` does, in the environment of a launcher."""

from pathlib import Path

import torch
from torch import Tensor, nn

from sgmcmc_prune.chains.chain import Chain
from sgmcmc_prune.chains.schedules import Cyclical
from sgmcmc_prune.data.batches import MinibatchStream
from sgmcmc_prune.errors import RunError
from sgmcmc_prune.likelihoods import categorical
from sgmcmc_prune.machine import distributed
from sgmcmc_prune.machine.distributed import ALONE, Ranks
from sgmcmc_prune.preconditioners import RMSprop
from sgmcmc_prune.priors import SpikeSlab
from sgmcmc_prune.priors.em import EM
from sgmcmc_prune.priors.em_settings import EMSettings
from sgmcmc_prune.samplers import SGHMC
from sgmcmc_prune.store import checkpoint

#: Seven examples a minibatch: two ranks take three and four of them.
NUM_DATA, BATCH_SIZE, STEPS = 101, 7, 200


def make_chain(ranks: Ranks = ALONE, bad_example: bool = False) -> Chain:
    """A float64 network under a spike-and-slab prior with EM and an adaptive mass; the 0th example may be NaN."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    inputs = torch.randn(NUM_DATA, 6, dtype=torch.float64)
    targets = torch.randint(3, (NUM_DATA,))
    prior = SpikeSlab(dict(model.named_parameters()), spike_variance=1e-2, slab_variance=1.0)
    sampler = SGHMC(
        model.named_parameters(),
        lr=0.02,
        momentum=0.9,
        num_data=NUM_DATA,
        prior=prior,
        preconditioner=RMSprop(),
        seed=3,
    )
    schedule = Cyclical(0.02, 0.01, 0.005, 0.9, 1.0, burn_in=100, cycles=2, explore=20, sample=30)
    stream = MinibatchStream(inputs, targets, BATCH_SIZE, seed=3, chain=0)
    if bad_example:
        stream.inputs[0] = torch.nan  # data that hold it from the start are refused
    return Chain(0, model, sampler, schedule, stream, categorical, EM(EMSettings(every=5), prior), ranks=ranks)


def advance(chain: Chain, steps: int) -> list[float]:
    """Take steps; return the losses."""
    losses = []
    for _ in range(steps):
        chain.advance()
        losses.append(chain.loss)
    return losses


def result(chain: Chain, losses: list[float]) -> dict[str, dict[str, Tensor] | Tensor]:
    """What is compared between ranks."""
    parameters = {name: p.detach().clone() for name, p in chain.parameters.items()}
    return {"parameters": parameters, "losses": torch.tensor(losses, dtype=torch.float64)}


def diverge(ranks: Ranks) -> str:
    """Run into an example that is NaN, which one rank sees; return what the error says."""
    chain = make_chain(ranks, bad_example=True)
    try:
        advance(chain, NUM_DATA)
    except RunError as error:
        return str(error)
    return "nothing happened"


def worker(folder: Path) -> None:
    """Take the steps as one of the ranks of a chain, and write what came out."""
    with distributed.world() as world:
        ranks, _ = distributed.divide(world, chains=1, each=world.size, timeout=60)
        chain = make_chain(ranks)
        found = result(chain, advance(chain, STEPS))
        ranks.check_same(chain.parameters, chain.step)
        error = diverge(ranks)
        chain.parameters["0.bias"].data[world.rank] += 1
        try:
            ranks.check_same(chain.parameters, chain.step)
            drift = "unseen"
        except RunError as seen:
            drift = str(seen)
        checkpoint.save(folder / f"rank{world.rank}.safetensors", {**found, "error": error, "drift": drift})
