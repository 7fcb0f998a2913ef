"""Ke and Fan's sampler in a run: chosen by its name and options, at their temperature, and resumed to the bit."""

from pathlib import Path
from typing import Any

import pytest
from small_run import assert_same_run, new_run, small

from sgmcmc_prune.chains.chain import Chain
from sgmcmc_prune.errors import Interrupted
from sgmcmc_prune.run.config import RunConfig
from sgmcmc_prune.run.main import resume


def adaptive(form: str) -> RunConfig:
    """One chain at T = 1e-5, pruned in the chain."""
    return small(
        **{
            "sampler.name": "adaptive_sghmc",
            "sampler.options": (f"form={form}",),
            "sampler.preconditioner": "identity",
            "sampler.temperature": 1e-5,
            "prior.mode": "em",
            "prune.in_chain": ("expected_log_odds",),
            "prune.post_hoc": ("magnitude",),
            "prune.decisions": (),
            "chains": 1,
            "schedule.cycles": 1,
            "prune.targets": (0.5,),
            "checkpoint_seconds": 0.0,
        }
    )


@pytest.mark.parametrize("form", ["corrected", "released"])
def test_an_interrupted_run_goes_on_to_the_bit(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, halved = (new_run(adaptive(form), tmp_path / name) for name in ("whole", "halved"))
    metrics = resume(whole, progress=False)
    advance = Chain.advance

    def interrupted(chain: Chain) -> Any:
        if chain.step == 40:
            raise Interrupted
        return advance(chain)

    with monkeypatch.context() as patch:
        patch.setattr(Chain, "advance", interrupted)
        with pytest.raises(Interrupted):
            resume(halved, progress=False)
    assert list(halved.glob("checkpoints/chain0.safetensors*"))
    resume(halved, progress=False)
    assert_same_run(whole, halved)
    assert metrics["dense"]["accuracy"] > 0.5
    reached = [row["sparsity"] for row in metrics["pruned"] if row["when"] == "in_chain"]
    assert reached == pytest.approx([0.5], abs=2e-4)


def test_a_run_that_names_no_form_of_it_is_refused(tmp_path: Path) -> None:
    job = new_run(adaptive("published"), tmp_path / "out")
    with pytest.raises(ValueError, match="form is 'published'; choose one of corrected, released"):
        resume(job, progress=False)
