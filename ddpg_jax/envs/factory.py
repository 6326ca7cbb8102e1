"""The environments a configuration asks for: lanes of gymnasium, or one written in JAX."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from ddpg_jax.config.plugins import find, load
from ddpg_jax.envs.device.backends import make_device_env
from ddpg_jax.envs.host.make import GymEnv, make_env, portable
from ddpg_jax.envs.host.traits import warn_of
from ddpg_jax.envs.host.vector import EpisodeSeedFn, VectorEnv, evaluation_seeds, training_seeds
from ddpg_jax.envs.host.workers import HostEnv, SubprocVectorEnv
from ddpg_jax.errors import ConfigError
from ddpg_jax.types import DeviceEnv, StopFn, never_stop

if TYPE_CHECKING:
    from ddpg_jax.config.schema import Config
    from ddpg_jax.config.sections import EnvConfig


def make_training_envs(config: Config, stop: StopFn = never_stop) -> HostEnv:
    """S x E environments to train in, `env.num_envs` for each seed; warns of what a user would not expect of them.

    Raises:
      EnvironmentFault: an environment cannot be made or trained.
      Interrupted: `stop` said so; in any method too.
    """
    shape = (len(config.seed_list), config.env.num_envs)
    lanes = _lanes(config.env, shape, training_seeds(config.seed_list, config.env.num_envs), stop)
    warn_of(lanes.traits, config.env.id)
    return lanes


def make_evaluation_envs(config: Config, episodes: int, stop: StopFn = never_stop, *, alone: bool = False) -> HostEnv:
    """S x `episodes` environments to evaluate in; each runs one episode of the bank of evaluation seeds.

    Every episode ends: where the environment has no time limit, there is one here.

    Args:
      config: the run.
      episodes: of each seed.
      stop: asked before every environment that is made, reset or stepped.
      alone: whether nothing is trained beside, so that this is where to warn of environments.

    Raises:
      EnvironmentFault: an environment cannot be made or trained.
      Interrupted: `stop` said so; in any method too.
    """
    shape = (len(config.seed_list), episodes)
    lanes = _lanes(config.env, shape, evaluation_seeds(episodes), stop, bounded=True)
    if alone:
        warn_of(lanes.traits, config.env.id)
    return lanes


def device_env(config: Config) -> DeviceEnv:
    """The environment written in JAX that a configuration names.

    Raises:
      ConfigError: it is not known, or its package is not installed.
      EnvironmentFault: it cannot be made or trained.
    """
    return make_device_env(config.env.id, config.env.max_episode_steps, config.env.kwargs)


def env_maker(env: EnvConfig, render_mode: str | None = None, *, bounded: bool = False) -> Callable[[], GymEnv]:
    """What makes one gymnasium environment of a configuration.

    Args:
      env: its section.
      render_mode: how it draws itself.
      bounded: as in `make_env`.

    Raises:
      ConfigError: it was handed over in Python, or registered, and is not there.
    """
    entry = load("env", env.id, "env.id") if "<" in env.id else find("env", env.id)
    if isinstance(entry, DeviceEnv):
        raise ConfigError(f"env.id={env.id!r} is written in JAX: name it jax:{env.id}")
    return partial(make_env, env.id, env.max_episode_steps, dict(env.kwargs), render_mode, bounded=bounded, entry=entry)


def _lanes(
    env: EnvConfig, shape: tuple[int, int], episode_seed: EpisodeSeedFn, stop: StopFn, *, bounded: bool = False
) -> HostEnv:
    make = env_maker(env, bounded=bounded)
    if not env.workers:
        return VectorEnv(make, shape, episode_seed, timeout=env.timeout, stop=stop)
    one = VectorEnv(make, (1, 1), episode_seed, timeout=env.timeout, stop=stop)
    one.close()
    return SubprocVectorEnv(
        portable(make, env.id),
        shape,
        episode_seed,
        spec=one.spec,
        workers=env.workers,
        timeout=env.timeout,
        traits=one.traits,
        stop=stop,
    )
