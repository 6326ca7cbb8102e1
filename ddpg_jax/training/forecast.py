"""What a run will need of memory at least, told from its configuration before anything is made or compiled.

Only what is sure is counted: parameters, their targets, Adam's moments and a gradient; a batch and what its layers
hold; environments of the host at a fraction of the smallest of them. The replay is counted where it is made, and what
the device loop's programs really take once they are compiled.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import jax

from ddpg_jax.config.algorithms import MRQConfig
from ddpg_jax.errors import ConfigError
from ddpg_jax.xla.memory import available_bytes, human_bytes

if TYPE_CHECKING:
    from ddpg_jax.config.schema import Config

_FLOAT, _COPIES = 4, 5
_ENV_BYTES = 4096
_CRITICS = {"fasttd3": 2, "drqv2": 2, "td7": 2, "mrq": 2}  # of algorithms without a field that says so


class Forecast(NamedTuple):
    """Bytes of all seeds together, and the fields that they come from.

    Attributes:
      learner: of networks and optimisers.
      batch: of a batch and its layers.
      envs: of environments of the host.
    """

    learner: int
    batch: int
    envs: int

    @property
    def advice(self) -> str:
        """The fields that most of it comes from."""
        fields = "algorithm.hidden, critic_hidden or num_critics", "algorithm.batch_size", "env.num_envs"
        return fields[max(range(3), key=lambda i: self[i])]


def forecast(config: Config, obs_size: int = 1, action_size: int = 1) -> Forecast:
    """What a run needs at least.

    Args:
      config: the run.
      obs_size: numbers in an observation; 1 where that is not known yet.
      action_size: likewise of an action.
    """
    algorithm, seeds = config.algorithm, len(config.seed_list)
    critics = getattr(algorithm, "num_critics", _CRITICS.get(algorithm.name, 1))
    outputs = getattr(algorithm, "num_atoms", 1)
    simba = algorithm.architecture != "mlp"
    seen = obs_size if algorithm.encoder is None else algorithm.encoder.features  # of pictures, as much as is sure
    actor = _weights(seen, algorithm.hidden, action_size, simba)
    critic = _weights(seen + action_size, algorithm.critic_widths, outputs, simba)
    encoder, steps = 0, 1
    if isinstance(algorithm, MRQConfig):
        encoder, steps = _of_embeddings(algorithm, seen, action_size), algorithm.horizon
        actor = _weights(algorithm.embedding_size, algorithm.hidden, action_size, simba)
        critic = _weights(algorithm.embedding_size, algorithm.critic_widths, outputs, simba)
    number = _FLOAT if algorithm.encoder is None else 1
    layers = sum(algorithm.hidden) + critics * (sum(algorithm.critic_widths) + outputs)
    on_host = not config.on_device
    return Forecast(
        learner=seeds * _COPIES * _FLOAT * (actor + critics * critic + encoder),
        batch=seeds * algorithm.batch_size * (2 * steps * obs_size * number + _FLOAT * (action_size + 2 + layers)),
        envs=seeds * config.env.num_envs * _ENV_BYTES if on_host else 0,
    )


def check_forecast(config: Config, obs_size: int = 1, action_size: int = 1) -> None:
    """Refuses a run that cannot fit into memory, whatever else it needs; arguments as in `forecast`.

    Raises:
      ConfigError: it cannot; both numbers are named, and what to lower.
    """
    needed, free, seeds = forecast(config, obs_size, action_size), _free_bytes(), len(config.seed_list)
    devices = jax.local_device_count() if config.on_device else 1
    if sum(needed) // devices > free:
        raise ConfigError(
            f"{seeds} seeds need {human_bytes(sum(needed))} at least: {human_bytes(needed.learner)} for networks and "
            f"optimisers, {human_bytes(needed.batch)} for a batch and its layers, {human_bytes(needed.envs)} for "
            f"environments; {human_bytes(free)} are free: lower {needed.advice}, or seeds"
        )


def _weights(inputs: int, widths: Sequence[int], outputs: int, simba: bool) -> int:
    """Weights of the layers of a network, biases apart."""
    if simba:
        return inputs * widths[0] + 8 * sum(width * width for width in widths) + widths[-1] * outputs
    return sum(a * b for a, b in pairwise((inputs, *widths, outputs)))


def _of_embeddings(algorithm: MRQConfig, obs_size: int, action_size: int) -> int:
    """Weights of what learns the embeddings of MR.Q, those that stand still counted as what they add to the copies."""
    size, entry, widths = algorithm.embedding_size, algorithm.action_embedding, algorithm.encoder_hidden
    pair = action_size * entry + _weights(size + entry, widths, size, False)
    copied = _weights(obs_size, widths, size, False) + pair
    return copied * (_COPIES + 2) // _COPIES + size * (size + 1 + algorithm.reward_bins)


def _free_bytes() -> int:
    statistics = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in statistics:
        return statistics["bytes_limit"] - statistics["bytes_in_use"]
    return available_bytes()
