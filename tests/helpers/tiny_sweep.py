"""A sweep that is over in seconds, as text with changes, and loaded from a file."""

from pathlib import Path
from typing import Any

from ddpg_jax.training.sweep.grid import Sweep, load_sweep

GRID = "[grid]\nalgorithm.critic_learning_rate = [1e-3, 1e-2]\nexploration.sigma = [0.1, 0.5]\n"


def tiny_text(identifier: str = "jax:pendulum", total_steps: int = 60, log_every: int = 20) -> str:
    """Its `[config]`, of two seeds."""
    return f"""
[config]
seeds = [4, 9]
total_steps = {total_steps}
env.id = "{identifier}"
env.max_episode_steps = 15
algorithm.hidden = [8]
algorithm.batch_size = 4
algorithm.warmup_steps = 20
replay.capacity = 100
evaluation.every = 30
evaluation.episodes = 3
logging.every = {log_every}
"""


def load_text(folder: Path, text: str, **overrides: Any) -> Sweep:
    """The sweep of a file with this text, which is written."""
    path = folder / "sweep.toml"
    path.write_text(text)
    return load_sweep(path, overrides)
