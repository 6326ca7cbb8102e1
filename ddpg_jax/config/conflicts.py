"""Where fields of different sections contradict each other, or have no effect beside each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ddpg_jax.config.sections import WRAPPERS, GaussianConfig, HindsightReplayConfig

if TYPE_CHECKING:
    from ddpg_jax.config.schema import Config


class Conflict(NamedTuple):
    """A field that does not go with others.

    Attributes:
      path: the field that is to be changed.
      message: what is wrong.
      others: the fields that it does not go with.
    """

    path: str
    message: str
    others: tuple[str, ...]


def find_conflicts(config: Config) -> list[Conflict]:
    """In which fields of different sections a configuration contradicts itself."""
    env, capacity, batch = config.env, config.replay.capacity, config.algorithm.batch_size
    native, what = ("device", "written in JAX") if config.on_device else ("host", "a gymnasium environment")
    found: list[Conflict] = []
    if config.loop not in ("auto", native):
        hint = "; its counterpart written in JAX is jax:pendulum" if env.id == "Pendulum-v1" else ""
        message = f'cannot run env.id={env.id!r}, which is {what}: set loop to "{native}"{hint}'
        found.append(Conflict("loop", message, ("env.id",)))
    if not config.on_device and config.data_parallel > 1:
        message = f"has no effect on the host loop, which runs env.id={env.id!r}: set it to 1"
        found.append(Conflict("data_parallel", message, ("env.id",)))
    if config.on_device and env.workers:
        message = f"has no effect on env.id={env.id!r}, which is written in JAX: set it to 0"
        found.append(Conflict("env.workers", message, ("env.id",)))
    if config.on_device and isinstance(config.replay, HindsightReplayConfig):
        message = f'"hindsight" is for the host loop, but env.id={env.id!r} is written in JAX: set it to "uniform"'
        found.append(Conflict("replay.kind", message, ("env.id",)))
    if env.max_instances is not None and isinstance(config.replay, HindsightReplayConfig):
        message = (
            'is not kept by replay.kind="hindsight", which asks an environment of its own for rewards: leave it out'
        )
        found.append(Conflict("env.max_instances", message, ("replay.kind",)))
    foreign = [each.name for each in env.wrappers if ":" not in each.name and each.name not in WRAPPERS]
    if config.on_device and foreign:
        known = f"there are {', '.join(WRAPPERS)}, and module:function of your own"
        message = f"{foreign[0]!r} is not for env.id={env.id!r}, which is written in JAX: {known}"
        found.append(Conflict("env.wrappers", message, ("env.id",)))
    host_only = {
        "action_range": env.action_range,
        "max_instances": env.max_instances,
        "info_keys": env.info_keys,
    }
    for name, value in host_only.items() if config.on_device else ():
        if value:
            message = f"has no effect on env.id={env.id!r}, which is written in JAX: leave it out"
            found.append(Conflict(f"env.{name}", message, ("env.id",)))
    encoder = config.algorithm.encoder
    if config.logging.augmentations and (encoder is None or not encoder.shift):
        message = "has no effect without algorithm.encoder.shift, by which pictures are shifted: leave it out"
        found.append(Conflict("logging.augmentations", message, ("algorithm.encoder",)))
    found += _pixels_conflicts(config) + _window_conflicts(config) + _noise_conflicts(config)
    if capacity < batch:
        message = f"holds fewer transitions than algorithm.batch_size={batch} draws from it: give it many times more"
        found.append(Conflict("replay.capacity", message, ("algorithm.batch_size", "algorithm.name")))
    return found


def _noise_conflicts(config: Config) -> list[Conflict]:
    """What DrQ-v2 cannot take for the noise in its losses."""
    noise = config.exploration
    if config.algorithm.name != "drqv2" or config.algorithm.make_agent is not None:
        return []
    if not isinstance(noise, GaussianConfig):
        message = f'must be "gaussian" with algorithm.name="drqv2", whose losses have its noise too, not {noise.kind!r}'
        return [Conflict("exploration.kind", message, ("algorithm.name",))]
    if noise.schedule == "inverse_episode":
        message = 'must be "constant", "linear" or "exponential" with algorithm.name="drqv2": updates have no episode'
        return [Conflict("exploration.schedule", message, ("algorithm.name",))]
    return []


def _window_conflicts(config: Config) -> list[Conflict]:
    """What an agent that learns from windows cannot do, or needs more of."""
    window, algorithm, envs = config.algorithm.window, config.algorithm, config.env.num_envs
    if window is None:
        return []
    found: list[Conflict] = []
    recurrent = algorithm.memory is not None
    of, length = ("algorithm.memory", "memory.length") if recurrent else ("algorithm.name", "horizon")
    if isinstance(config.replay, HindsightReplayConfig):
        whose = "an agent with memory" if recurrent else f'algorithm.name="{algorithm.name}"'
        message = f'"hindsight" has no windows for {whose}: set it to "uniform" or "prioritized"'
        found.append(Conflict("replay.kind", message, (of,)))
    steps = window.burn_in + window.length + max(0, window.keep_every - 1)
    for path, held in (
        ("algorithm.warmup_steps", algorithm.learning_begins),
        ("replay.capacity", config.replay.capacity),
    ):
        if held < steps * envs:
            name = "algorithm.learning_starts" if path != "replay.capacity" and algorithm.learning_starts else path
            message = (
                f"holds no window of {steps} steps, burn-in included, of each of {envs} environments: "
                f"set it to {steps * envs} or more, or lower algorithm.{length}"
            )
            found.append(Conflict(name, message, (of,)))
    return found


def _pixels_conflicts(config: Config) -> list[Conflict]:
    """What has no effect where the agent sees pictures, and what a replay cannot do with them."""
    env = config.env
    if env.pixels is None:
        return []
    found: list[Conflict] = []
    ours = [each.name for each in env.wrappers if each.name in WRAPPERS]
    if ours and not env.pixels.proprioception:
        message = f"{ours[0]!r} has no effect with env.pixels, which hides the observations that it changes"
        found.append(Conflict("env.wrappers", message, ("env.pixels",)))
    if config.on_device and env.pixels.camera is not None:
        message = f"has no effect on env.id={env.id!r}, which is written in JAX and has no cameras: leave it out"
        found.append(Conflict("env.pixels.camera", message, ("env.id",)))
    if config.on_device and env.pixels.source == "observation":
        message = f'"observation" is for images, and env.id={env.id!r}, which is written in JAX, draws itself: "scene"'
        found.append(Conflict("env.pixels.source", message, ("env.id",)))
    if env.pixels.source == "observation" and env.pixels.camera is not None:
        message = 'has no effect with env.pixels.source="observation", which is not drawn: leave it out'
        found.append(Conflict("env.pixels.camera", message, ("env.pixels.source",)))
    if env.pixels.draw == "each" and env.pixels.repeat == 1:
        message = '"each" has no effect with env.pixels.repeat=1, which has one step to draw: set it to "last"'
        found.append(Conflict("env.pixels.draw", message, ("env.pixels.repeat",)))
    if isinstance(config.replay, HindsightReplayConfig):
        message = (
            '"hindsight" finds no goals in pictures: set it to "uniform" or "prioritized", or leave out env.pixels'
        )
        found.append(Conflict("replay.kind", message, ("env.pixels",)))
    least = (env.pixels.stack + 1) * env.num_envs
    if config.replay.capacity < least:
        message = (
            f"holds no stack of {env.pixels.stack} pictures and the next, of {env.num_envs} environments: set it to "
            f"{least} or more"
        )
        found.append(Conflict("replay.capacity", message, ("env.pixels",)))
    return found
