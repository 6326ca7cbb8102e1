"""The environments a configuration asks for: lanes of gymnasium, or one written in JAX."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING

from ddpg_jax.config.plugins import find, load
from ddpg_jax.envs.device.backends import DRAWN, make_named_env
from ddpg_jax.envs.host.goals import GoalTask, goal_task
from ddpg_jax.envs.host.make import GymEnv, describe, make_env, portable
from ddpg_jax.envs.host.pixels import see_pixels
from ddpg_jax.envs.host.pool import INSTANCES, Pool, borrow
from ddpg_jax.envs.host.timeout import Timeout
from ddpg_jax.envs.host.traits import warn_of
from ddpg_jax.envs.host.vector import EpisodeSeedFn, LaneNameFn, VectorEnv, pooled_seeds, training_seeds
from ddpg_jax.envs.host.workers import HostEnv, SubprocVectorEnv
from ddpg_jax.envs.host.wrappers import Wrapping
from ddpg_jax.envs.pictures import View
from ddpg_jax.errors import ConfigError
from ddpg_jax.types import DeviceEnv, StopFn, never_stop

if TYPE_CHECKING:
    from ddpg_jax.config.pixels import PixelsConfig
    from ddpg_jax.config.schema import Config
    from ddpg_jax.config.sections import EnvConfig


def make_training_envs(config: Config, stop: StopFn = never_stop) -> HostEnv:
    """S x E environments to train in, `env.num_envs` for each seed; warns of what a user would not expect of them.

    Raises:
      ConfigError: they are more than may exist at once.
      EnvironmentFault: an environment cannot be made or trained.
      Interrupted: `stop` said so; in any method too.
    """
    env, seeds = config.env, len(config.seed_list)
    count = seeds * env.num_envs
    if env.max_instances is not None and count > env.max_instances:
        raise ConfigError(
            f"env.max_instances={env.max_instances}, but {seeds} seeds of {env.num_envs} environments train in {count} "
            "at once: give fewer seeds, as in seeds=[0], or lower env.num_envs"
        )
    if shares_instances(config) and env.workers:
        raise ConfigError(
            f"env.max_instances={env.max_instances} leaves none to evaluate in beside the {count} that train, and "
            f"those in worker processes cannot be shared: set env.workers to 0, not {env.workers}"
        )
    seed_fn = training_seeds(config.seed_list, env.num_envs)
    lanes = _lanes(env, env_maker(env), (seeds, env.num_envs), seed_fn, stop)
    warn_of(lanes.traits, env.id)
    return lanes


def shares_instances(config: Config) -> bool:
    """Whether evaluation uses the environments that train, as no other may exist beside them."""
    most = config.env.max_instances
    return most is not None and most <= len(config.seed_list) * config.env.num_envs


def make_evaluation_envs(
    config: Config,
    episodes: int,
    stop: StopFn = never_stop,
    *,
    alone: bool = False,
    beside: HostEnv | None = None,
) -> Pool:
    """S x `episodes` evaluation episodes, each from the bank of evaluation seeds, in as many environments as may be.

    Every episode ends: where the environment has no time limit, there is one here.

    Args:
      config: the run.
      episodes: of each seed.
      stop: asked before every environment that is made, reset or stepped.
      alone: whether nothing is trained beside, so that this is where to warn of environments.
      beside: those that train, which are used where no others may exist; their episodes in progress are lost then.

    Raises:
      EnvironmentFault: an environment cannot be made or trained.
      Interrupted: `stop` said so; in any method too.
    """
    env, shape = config.env, (len(config.seed_list), episodes)
    most, training = env.max_instances, 0 if alone else len(config.seed_list) * env.num_envs
    limit = INSTANCES * max(1, env.workers) if most is None else most - training
    make = env_maker(env, bounded=True)
    if limit <= 0:
        if not isinstance(beside, VectorEnv):
            raise ConfigError(f"env.max_instances={most} leaves no environment to evaluate in")
        make, limit = borrow(beside), len(beside.instances)
    seed_fn, lane_name = pooled_seeds(episodes)
    lanes = _lanes(env, make, (1, min(limit, shape[0] * episodes)), seed_fn, stop, lane_name)
    if alone:
        warn_of(lanes.traits, env.id)
    return Pool(lanes, shape)


@contextmanager
def open_goal_task(config: Config) -> Generator[GoalTask]:
    """What hindsight must know of the environment, by one that is made for it.

    Raises:
      ConfigError: it has no goals, or no rule of what is rewarded.
      EnvironmentFault: it cannot be made, or failed.
    """
    env = config.env
    with closing(env_maker(env)()) as made:
        with Timeout(env.timeout):
            task = goal_task(made, describe(made), env.id)
        yield task


def device_env(config: Config) -> DeviceEnv:
    """The environment written in JAX that a configuration names, in its wrappers, and as its pictures where it is seen.

    Raises:
      ConfigError: it is not known, or its package is not installed.
      EnvironmentFault: it cannot be made or trained, or one of its wrappers cannot.
    """
    env, seen = undrawn_env(config), config.env.pixels
    if seen is None:
        return env
    from ddpg_jax.envs.device.pixels import pixels  # with jax, which the command line does without

    return pixels(env, config.env.id, _view(seen))


def undrawn_env(config: Config) -> DeviceEnv:
    """The environment written in JAX that a configuration names, in its wrappers, as it observes itself.

    Raises:
      ConfigError: as in `device_env`, and EnvironmentFault too.
    """
    env = make_named_env(config.env.id, config.env.max_episode_steps, config.env.kwargs)
    if not config.env.wrappers:
        return env
    from ddpg_jax.envs.device.wrappers import wrap_device_env

    return wrap_device_env(env, config.env.id, [(each.name, each.kwargs) for each in config.env.wrappers])


def env_maker(env: EnvConfig, render_mode: str | None = None, *, bounded: bool = False) -> Callable[[], GymEnv]:
    """What makes one gymnasium environment of a configuration, in its wrappers.

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
    return partial(
        make_env,
        env.id,
        env.max_episode_steps,
        dict(env.kwargs),
        render_mode,
        view=None if env.pixels is None else _view(env.pixels),
        bounded=bounded,
        entry=entry,
        wrappings=tuple(Wrapping(each.name, dict(each.kwargs)) for each in env.wrappers),
        action_range=env.action_range,
    )


def drawn_env_maker(config: Config) -> Callable[[], GymEnv]:
    """What makes one environment of a configuration, as one of gymnasium that draws itself; all of its episodes end.

    Raises:
      ConfigError: as in `env_maker`, or an environment written in JAX cannot draw itself.
      EnvironmentFault: as in `device_env`.
    """
    if not config.on_device:
        return env_maker(config.env, "rgb_array", bounded=True)
    from ddpg_jax.envs.host.from_device import FromDevice

    env, seen = undrawn_env(config), config.env.pixels
    if env.draw is None:
        raise ConfigError(
            f"env.id={config.env.id!r} cannot draw itself: there are videos of gymnasium's environments, and of those "
            f"written in JAX that can, as {', '.join(DRAWN)}"
        )

    def make() -> GymEnv:
        made = FromDevice(env, render_mode="rgb_array")
        return made if seen is None else see_pixels(made, config.env.id, _view(seen))

    return make


def _view(seen: PixelsConfig) -> View:
    return View(
        seen.size,
        seen.gray,
        seen.stack,
        seen.repeat,
        seen.draw == "each",
        seen.camera,
        seen.source == "observation",
        seen.proprioception,
    )


def _lanes(
    env: EnvConfig,
    make: Callable[[], GymEnv],
    shape: tuple[int, int],
    episode_seed: EpisodeSeedFn,
    stop: StopFn,
    lane_name: LaneNameFn | None = None,
) -> HostEnv:
    if not env.workers:
        return VectorEnv(
            make, shape, episode_seed, lane_name=lane_name, info_keys=env.info_keys, timeout=env.timeout, stop=stop
        )
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
        lane_name=lane_name,
        info_keys=env.info_keys,
        stop=stop,
    )
