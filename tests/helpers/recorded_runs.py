"""Directories of runs that hold a configuration and a record, as a run writes them, but learned nothing."""

import json
from pathlib import Path

import numpy as np

from ddpg_jax.config.load import dump_toml, load_config
from ddpg_jax.runs.loggers.jsonl import JsonLines


def evaluation_rows(steps, seeds, returns):
    """Rows of evaluations; returns are `[N, S]` or `[N, S, episodes]`."""
    returns = np.asarray(returns, float)
    returns = returns[..., None] if returns.ndim == 2 else returns
    return [
        {
            "event": "evaluation",
            "seed": int(seed),
            "step": int(step),
            "mean_return": float(returns[n, s].mean()),
            "returns": returns[n, s].tolist(),
        }
        for n, step in enumerate(steps)
        for s, seed in enumerate(seeds)
    ]


def write_run(path: Path, steps, returns, *, diverged=None, seconds=None, **config):
    """A run of seeds 0 to S - 1 with these mean returns `[N, S]`; seeds diverged at steps, by seed."""
    seeds = list(range(np.shape(returns)[1]))
    path.mkdir(parents=True)
    text = dump_toml(load_config(seeds=seeds, total_steps=int(steps[-1]), **config))
    (path / "config.toml").write_text(text)
    rows = evaluation_rows(steps, seeds, returns)
    rows += [{"event": "diverged", "seed": seed, "step": step, "updates": 9} for seed, step in (diverged or {}).items()]
    record = JsonLines(path / "metrics.jsonl")
    record.write(sorted(rows, key=lambda row: row["step"]))
    record.close()
    lines = [
        {"step": int(step), "updates": 0, "seconds": each} for step, each in zip(steps, seconds or [], strict=False)
    ]
    (path / "timing.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def learning(num_evaluations, num_seeds, top, seed=0, start=-1400.0):
    """Returns `[N, S]` of seeds that learn, more or less."""
    rng = np.random.default_rng(seed)
    time = np.linspace(0, 1, num_evaluations)[:, None]
    rate = rng.uniform(3, 8, num_seeds)
    return start + (top - start) * (1 - np.exp(-rate * time)) + rng.normal(0, 40, (num_evaluations, num_seeds))
