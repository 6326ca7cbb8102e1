"""Learning beside peers: the same task, settings, seeds and evaluation episodes; returns and intervals as JSON.

    python benchmarks/learning.py configs/mujoco/half_cheetah/ddpg.toml --peers sb3 --seeds 3 --total-steps 50000

Peers run one seed after another, and a peer that is not installed is said to be missing. Each is evaluated by its
greedy policy on our bank of evaluation seeds, at the same steps. Nothing here is timed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from rich.console import Console
from rich.table import Table

from ddpg_jax.cli import parse_config, split_overrides
from ddpg_jax.config import Config
from ddpg_jax.envs.lanes import evaluation_seeds
from ddpg_jax.reports.result import environment
from ddpg_jax.reports.statistics import summarize
from ddpg_jax.training import train

MODULES = {"sb3": "stable_baselines3", "sbx": "sbx"}


def make_peer(name: str, config: Config, env: gymnasium.Env[Any, Any], seed: int) -> Any:
    """A peer's DDPG at the settings of the configuration."""
    from stable_baselines3.common.noise import NormalActionNoise

    algorithm, size = config.algorithm, env.action_space.shape[0]
    assert config.exploration.kind == "gaussian", "peers are compared under Gaussian noise"
    assert algorithm.actor_learning_rate == algorithm.critic_learning_rate, "peers have one learning rate"
    plain = (algorithm.n_step, algorithm.updates_per_step, algorithm.action_layer, config.env.num_envs) == (1, 1, 0, 1)
    unset = (algorithm.learning_starts, algorithm.max_grad_norm, algorithm.final_scale, config.env.max_episode_steps)
    assert plain, "peers know no such settings"
    assert unset == (None,) * 4, "peers know no such settings"
    assert not config.env.kwargs, "peers are given none"
    assert (algorithm.weight_decay, algorithm.activation, algorithm.initializer) == ("none", "relu", "fan_in")
    module = importlib.import_module(MODULES[name])
    return module.DDPG(
        "MlpPolicy",
        env,
        policy_kwargs={"net_arch": list(algorithm.hidden)},
        learning_rate=algorithm.actor_learning_rate,
        batch_size=algorithm.batch_size,
        buffer_size=config.replay.capacity,
        learning_starts=algorithm.warmup_steps,
        tau=algorithm.tau,
        gamma=algorithm.gamma,
        train_freq=1,
        gradient_steps=1,
        action_noise=NormalActionNoise(np.zeros(size), config.exploration.sigma * np.ones(size)),
        seed=seed,
    )


def peer_returns(name: str, config: Config, seed: int) -> list[dict[str, Any]]:
    """Trains one seed of a peer; returns its evaluations."""
    from stable_baselines3.common.callbacks import BaseCallback, EveryNTimesteps

    evaluations: list[dict[str, Any]] = []
    bank = evaluation_seeds(config.evaluation.episodes)

    class Evaluate(BaseCallback):
        def _on_step(self) -> bool:
            env = gymnasium.make(config.env.id)
            returns = [episode(env, self.model, bank(j, 0)) for j in range(config.evaluation.episodes)]
            evaluations.append({"step": self.num_timesteps, "returns": returns})
            print(f"  {name} seed {seed} step {self.num_timesteps}: {np.mean(returns):.1f}", flush=True)
            return True

    model = make_peer(name, config, gymnasium.make(config.env.id), seed)
    every = config.evaluation.every or config.total_steps
    model.learn(config.total_steps, callback=EveryNTimesteps(every, Evaluate()))
    return evaluations


def episode(env: gymnasium.Env[Any, Any], model: Any, seed: int) -> float:
    """The return of one episode of a peer's greedy policy."""
    obs, _ = env.reset(seed=seed)
    total, done = 0.0, False
    while not done:
        obs, reward, terminated, truncated, _ = env.step(model.predict(obs, deterministic=True)[0])
        total, done = total + float(reward), terminated or truncated
    return total


def ours(config: Config) -> list[dict[str, Any]]:
    """Trains all seeds of ours; returns the summaries of the evaluations."""
    with tempfile.TemporaryDirectory() as folder:
        run = train(config, Path(folder) / "run", console=Console())
        rows = [json.loads(line) for line in (run.directory / "metrics.jsonl").read_text().splitlines()]
    steps = sorted({row["step"] for row in rows if row["event"] == "evaluation"})
    by_step = {s: [r["returns"] for r in rows if r["event"] == "evaluation" and r["step"] == s] for s in steps}
    return [{"step": s, **summarize(np.array(by_step[s]))} for s in steps]


def main() -> None:
    """Runs the comparison."""
    words, overrides = [], []
    known, rest = ["--peers", "--out"], sys.argv[1:]
    while rest:
        word = rest.pop(0)
        if word in known:
            words += [word, rest.pop(0)]
        elif word.startswith("--"):
            overrides += split_overrides([word, rest.pop(0)])[1]
        else:
            words.append(word)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--peers", default="sb3", help="comma-separated: sb3, sbx, or none")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args(words)
    config = parse_config(options.config, overrides)
    results: dict[str, Any] = {"ours": ours(config)}
    for name in [] if options.peers == "none" else options.peers.split(","):
        if importlib.util.find_spec(MODULES[name]) is None:
            results[name] = "not installed"
            continue
        seeds = [peer_returns(name, config, seed) for seed in config.seed_list]
        results[name] = [
            {"step": e[0]["step"], **summarize(np.array([x["returns"] for x in e]))} for e in zip(*seeds, strict=True)
        ]
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    record = {
        "command": " ".join(["python", *sys.argv]),
        "commit": commit,
        "date": time.strftime("%Y-%m-%d"),
        "config": config.model_dump(mode="json"),
        "evaluations": results,
        **environment(),
    }
    path = options.out / f"learning_{config.env.id.lower()}_{config.algorithm.name}_{config.total_steps}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    show(results)
    print(path)


def show(results: dict[str, Any]) -> None:
    """Final and best evaluations, side by side."""
    table = Table("code", "evaluation", "step", "interquartile mean", "95% interval", "each seed")
    for name, evaluations in results.items():
        if isinstance(evaluations, str):
            table.add_row(name, evaluations)
            continue
        best = max(evaluations, key=lambda e: e["interquartile_mean"])
        for label, e in (("final", evaluations[-1]), ("best", best)):
            band = "-" if e["interval"] is None else f"{e['interval'][0]:.1f} to {e['interval'][1]:.1f}"
            seeds = " ".join(f"{x:.1f}" for x in e["per_seed"])
            table.add_row(name, label, str(e["step"]), f"{e['interquartile_mean']:.1f}", band, seeds)
    Console().print(table)


if __name__ == "__main__":
    main()
