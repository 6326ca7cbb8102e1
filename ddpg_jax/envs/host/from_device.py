"""Environments written in JAX as ones of gymnasium, for the host loop; ours among them, registered under `ddpg_jax/`.

jax is imported when one is made, so that the names can be checked without it.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from ddpg_jax.errors import EnvironmentFault

if TYPE_CHECKING:
    import jax

    from ddpg_jax.types import DeviceEnv, HostArray

_ENDLESS = 2**31 - 1


class FromDevice(gymnasium.Env[Any, Any]):
    """An environment of gymnasium out of one written in JAX, one compiled call for each step, on the CPU.

    An episode is a function of the seed of its reset and of the actions: the key of its beginning is made of the seed,
    and those of its steps are folded out of it by their numbers.

    Args:
      env: the environment; its actions are taken in its own units.
      max_episode_steps: time limit, which counts beside that of the environment; None: none beside.
      render_mode: "rgb_array", where the environment can draw itself.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012 - as gymnasium declares it

    def __init__(self, env: DeviceEnv, max_episode_steps: int | None = None, render_mode: str | None = None) -> None:
        import jax

        spec = env.spec
        ends = (np.array(bound, np.float32) for bound in (spec.action_low, spec.action_high))
        self._low, self._high = ends
        self.action_space = Box(self._low, self._high, dtype=np.float32)
        of_bytes = spec.obs_dtype == "uint8"
        low, high, dtype = (0, 255, np.uint8) if of_bytes else (-np.inf, np.inf, np.float32)
        self.observation_space = Box(low, high, spec.obs_shape, dtype)
        self.max_episode_steps = env.max_episode_steps if max_episode_steps is None else max_episode_steps
        self._device = _cpu()
        self._begin, self._advance = jax.jit(_beginning(env)), jax.jit(_advancing(env))
        self.render_mode, self._drawing = render_mode, env.draw
        self._painters: dict[int, Callable[..., Any]] = {}
        self._state: Any = None
        self._obs: Any = None
        self._key: Any = None
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[HostArray, dict[str, Any]]:
        """Begins an episode."""
        import jax

        super().reset(seed=seed)
        drawn = int(self.np_random.integers(2**32)) if seed is None else seed
        with jax.default_device(self._device):
            self._state, obs, self._key = self._begin(np.array(divmod(drawn, 2**32), np.uint32))
        self._steps, self._obs = 0, obs
        return np.array(obs), {}

    def step(self, action: Any) -> tuple[HostArray, float, bool, bool, dict[str, Any]]:
        """Takes a step."""
        import jax

        taken = np.asarray(action, np.float32)
        inner = (2.0 * (taken - self._low) / (self._high - self._low) - 1.0).clip(-1.0, 1.0)
        with jax.default_device(self._device):
            self._state, obs, *rest = self._advance(self._state, inner, self._key, np.int32(self._steps))
        self._steps, self._obs = self._steps + 1, obs
        reward, terminated, truncated = map(np.asarray, rest)
        limit = self._steps >= self.max_episode_steps
        return np.array(obs), float(reward), bool(terminated), bool(truncated) or limit, {}

    def render(self) -> HostArray | None:
        """The scene, `uint8 [480, 480, 3]`, where the render mode is `rgb_array`."""
        return None if self.render_mode is None else self.paint(480)

    def paint(self, size: int) -> HostArray:
        """The scene, `uint8 [size, size, 3]`.

        Raises:
          EnvironmentFault: the environment cannot draw itself.
        """
        import jax

        if self._drawing is None:
            raise EnvironmentFault("this environment written in JAX cannot draw itself: its DeviceEnv.draw is None")
        if size not in self._painters:
            self._painters[size] = jax.jit(_drawing_at(self._drawing, size))
        with jax.default_device(self._device):
            return np.array(self._painters[size](self._obs))


def recall(**kwargs: Any) -> FromDevice:
    """`ddpg_jax/Recall-v0`: `jax:recall`, with its arguments."""
    from ddpg_jax.envs.device.memory_tasks import recall

    return _with_limit_outside(recall, kwargs)


def tmaze(**kwargs: Any) -> FromDevice:
    """`ddpg_jax/TMaze-v0`: `jax:tmaze`, with its arguments."""
    from ddpg_jax.envs.device.memory_tasks import tmaze

    return _with_limit_outside(tmaze, kwargs)


def hidden_pendulum(**kwargs: Any) -> FromDevice:
    """`ddpg_jax/HiddenPendulum-v0`: `jax:hidden-pendulum`, with its arguments."""
    from ddpg_jax.envs.device.hidden_pendulum import hidden_pendulum

    return _with_limit_outside(hidden_pendulum, kwargs)


def cartpole_swingup(**kwargs: Any) -> FromDevice:
    """`ddpg_jax/CartPoleSwingUp-v0`: `jax:cartpole-swingup`, with its arguments."""
    from ddpg_jax.envs.device.cartpole import cartpole_swingup

    return _with_limit_outside(cartpole_swingup, kwargs)


def reacher(**kwargs: Any) -> FromDevice:
    """`ddpg_jax/Reacher-v0`: `jax:reacher`, with its arguments."""
    from ddpg_jax.envs.device.reacher import reacher

    return _with_limit_outside(reacher, kwargs)


IDS = {
    "ddpg_jax/Recall-v0": recall,
    "ddpg_jax/TMaze-v0": tmaze,
    "ddpg_jax/HiddenPendulum-v0": hidden_pendulum,
    "ddpg_jax/CartPoleSwingUp-v0": cartpole_swingup,
    "ddpg_jax/Reacher-v0": reacher,
}
"""What is registered with gymnasium when this module is imported."""

for _id, _make in IDS.items():
    if _id not in gymnasium.registry:
        gymnasium.register(_id, f"{__name__}:{_make.__name__}")


def set_limit(env: gymnasium.Env[Any, Any], max_episode_steps: int | None) -> None:
    """Gives one of `IDS` another time limit than its own, longer or shorter; others are left alone."""
    inner = env.unwrapped
    if max_episode_steps is not None and isinstance(inner, FromDevice):
        inner.max_episode_steps = max_episode_steps


def _with_limit_outside(make: Callable[..., DeviceEnv], kwargs: dict[str, Any]) -> FromDevice:
    kwargs = dict(kwargs)
    render_mode = kwargs.pop("render_mode", None)
    own = make(**kwargs).max_episode_steps
    return FromDevice(make(**kwargs, max_episode_steps=_ENDLESS), own, render_mode)


def _drawing_at(draw: Callable[..., Any], size: int) -> Callable[..., Any]:
    return lambda obs: draw(obs, size)


def _beginning(env: DeviceEnv) -> Callable[..., Any]:
    import jax

    def begin(words: jax.Array) -> Any:
        key = jax.random.fold_in(jax.random.key(words[1]), words[0])
        state, obs = env.reset(jax.random.fold_in(key, 0))
        return state, obs, jax.random.fold_in(key, 1)

    return begin


def _advancing(env: DeviceEnv) -> Callable[..., Any]:
    import jax

    def advance(state: Any, action: jax.Array, key: jax.Array, number: jax.Array) -> Any:
        state, step = env.step(state, action, jax.random.fold_in(key, number))
        return state, step.next_obs, step.reward, step.terminated, step.truncated

    return advance


def _cpu() -> Any:
    """The device that steps environments: they are small, and each step is waited for."""
    import jax

    if multiprocessing.parent_process() is not None:  # a worker takes no memory of an accelerator
        jax.config.update("jax_platforms", "cpu")
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # this process was told to use no CPU
        return jax.local_devices()[0]
