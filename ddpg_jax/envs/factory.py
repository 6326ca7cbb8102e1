"""The environments a configuration asks for: lanes of gymnasium, or one written in JAX."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ddpg_jax.envs.device.backends import make_device_env
from ddpg_jax.envs.host.make import describe, make_env
from ddpg_jax.envs.host.vector import EpisodeSeedFn, VectorEnv, evaluation_seeds, training_seeds
from ddpg_jax.envs.host.workers import HostEnv, SubprocVectorEnv

if TYPE_CHECKING:
    from ddpg_jax.config.schema import Config
    from ddpg_jax.config.sections import EnvConfig
    from ddpg_jax.types import DeviceEnv


def make_training_envs(config: Config) -> HostEnv:
    """S x E environments to train in, `env.num_envs` for each seed.

    Raises:
      EnvironmentFault: an environment cannot be made or trained.
    """
    shape = (len(config.seed_list), config.env.num_envs)
    return _lanes(config.env, shape, training_seeds(config.seed_list, config.env.num_envs))


def make_evaluation_envs(config: Config, episodes: int) -> HostEnv:
    """S x `episodes` environments to evaluate in; each runs one episode of the bank of evaluation seeds.

    Raises:
      EnvironmentFault: an environment cannot be made or trained.
    """
    return _lanes(config.env, (len(config.seed_list), episodes), evaluation_seeds(episodes))


def device_env(config: Config) -> DeviceEnv:
    """The environment written in JAX that a configuration names.

    Raises:
      ConfigError: it is not known, or its package is not installed.
      EnvironmentFault: it cannot be made or trained.
    """
    return make_device_env(config.env.id, config.env.max_episode_steps, config.env.kwargs)


def _lanes(env: EnvConfig, shape: tuple[int, int], episode_seed: EpisodeSeedFn) -> HostEnv:
    make = partial(make_env, env.id, env.max_episode_steps, dict(env.kwargs))
    if not env.workers:
        return VectorEnv(make, shape, episode_seed, timeout=env.timeout)
    one = make()
    spec = describe(one)
    one.close()
    return SubprocVectorEnv(make, shape, episode_seed, spec=spec, workers=env.workers, timeout=env.timeout)
