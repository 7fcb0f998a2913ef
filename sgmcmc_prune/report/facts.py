"""What was run, in words: the first table of the page."""

from collections.abc import Sequence

from sgmcmc_prune.report.run_data import RunData


def facts(run: RunData) -> dict[str, str]:
    """Say what was run, in words."""
    c, info = run.config, run.info
    data = info.get("data", {})
    splits = ", ".join(f"{data[k]:,} {k}" for k in ("train", "validation", "test") if k in data)
    prior = f"{c.prior.family.replace('_', '-')}, starting variance {c.prior.slab_variance:g}"
    if c.prior.family == "horseshoe":
        prior = f"regularised horseshoe, global scale {c.prior.spike_variance**0.5:g}"
    elif c.prior.family == "spike_slab":
        prior = f"spike-and-slab, mode {c.prior.mode}, one indicator per {c.prior.group}; EM: {c.em.kind}"
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
        "prior": prior,
        "sampler": f"{c.sampler.name}, step {c.sampler.lr:g} to {c.sampler.lr_min:g}{annealed}, "
        f"momentum {c.sampler.momentum:g}, temperature {c.sampler.temperature:g}, mass {c.sampler.preconditioner}, "
        f"batches of {c.data.batch_size}",
        "schedule": f"burn-in {s.burn_in:g} epochs, then {s.cycles} cycles of {s.explore:g} exploring and "
        f"{s.sample:g} sampling",
        "pruning": f"post hoc by {_names(p.post_hoc)}; in the chain by {_names(p.in_chain)}",
        "seed": str(c.seed),
        "chains": str(c.chains),
        "draws": f"{s.cycles * s.draws} a chain, {s.draws} a cycle{done}",
        "versions": ", ".join(f"{name} {value}" for name, value in versions.items() if name),
        "machine": ", ".join([machine.get("platform", "unknown"), f"{machine.get('cpus', '?')} CPUs", c.device]),
        "time": f"{info['seconds'] / 60:.1f} minutes" if "seconds" in info else "not finished",
    }


def _names(criteria: Sequence[str]) -> str:
    return ", ".join(c.replace("_", " ") for c in criteria) or "nothing"
