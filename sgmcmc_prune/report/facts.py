"""What was run, in words: the first table of the page."""

from collections.abc import Sequence

from sgmcmc_prune.report.run_data import RunData
from sgmcmc_prune.run.config import RunConfig
from sgmcmc_prune.text_table import in_words


def facts(run: RunData) -> dict[str, str]:
    """Say what was run, in words."""
    c, info = run.config, run.info
    data = info.get("data", {})
    splits = ", ".join(f"{data[k]:,} {k}" for k in ("train", "validation", "test") if k in data)
    s, p = c.schedule, c.prune
    annealed = " (the time step on the cosine)" if c.sampler.anneal == "time_step" else ""
    done = f"; written so far: {', '.join(map(str, run.dense.draws))}" if run.dense and not run.finished else ""
    versions = {info.get("library", {}).get("name", ""): info.get("library", {}).get("version", "")}
    versions |= info.get("versions", {})
    machine = info.get("machine", {})
    return {
        "preset": c.preset,
        "data": f"{c.data.name} ({splits})" if splits else c.data.name,
        "model": c.model.name,
        "prior": _prior(c),
        "sampler": f"{c.sampler.name}, step {c.sampler.lr:g} to {c.sampler.lr_min:g}{annealed}, "
        f"momentum {c.sampler.momentum:g}, temperature {c.sampler.temperature:g}, mass {c.sampler.preconditioner}, "
        f"batches of {c.data.batch_size}",
        "schedule": f"burn-in {s.burn_in:g} epochs, then {s.cycles} cycles of {s.explore:g} exploring and "
        f"{s.sample:g} sampling",
        "pruning": f"post hoc by {_names(p.post_hoc)}; in the chain by {_names(p.in_chain)}",
        "seed": str(c.seed),
        "chains": str(c.chains),
        "draws": f"{s.num_draws} a chain, {s.draws} a cycle{done}",
        "versions": ", ".join(f"{name} {value}" for name, value in versions.items() if name),
        "machine": ", ".join([machine.get("platform", "unknown"), f"{machine.get('cpus', '?')} CPUs", c.device]),
        "time": f"{info['seconds'] / 60:.1f} minutes" if "seconds" in info else "not finished",
    }


def _names(criteria: Sequence[str]) -> str:
    return ", ".join(in_words(c) for c in criteria) or "nothing"


def _prior(c: RunConfig) -> str:
    """The prior as it was stated; what was learned of it is a table of its own."""
    p = c.prior
    slab = f"starting variance {p.slab_variance:g}"
    stated = {
        "spike_slab": f"spike-and-slab, mode {p.mode}, one indicator per {p.group}; EM: {c.em.kind}",
        "gaussian": f"gaussian, variance {p.slab_variance:g}",
        "laplace": f"laplace, {slab}",
        "student_t": f"student-t, {slab}",
        "horseshoe": f"regularised horseshoe, slab variance {p.slab_variance:g}",
    }
    return ", ".join((stated.get(p.family, p.family), *p.options))
