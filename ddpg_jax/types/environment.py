"""What is known of an environment, and an environment written in JAX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ddpg_jax.types.aliases import Array, Tree
from ddpg_jax.types.data import Step


class ObsPart(NamedTuple):
    """An array of an environment's observation, and where it lies in the vector that the agent sees.

    Attributes:
      path: keys of dictionaries and places in tuples that lead to it; `()` where it is the whole observation.
      start: its first number in the vector.
      stop: the one after its last.
      shape: as the environment gives it; its numbers lie in C order.
      dtype: as the environment gives it.
    """

    path: tuple[str, ...]
    start: int
    stop: int
    shape: tuple[int, ...]
    dtype: str

    @property
    def name(self) -> str:
        """The keys, joined by dots."""
        return ".".join(self.path)

    def __str__(self) -> str:
        return f"{self.name or 'observation'}[{self.start}:{self.stop}] {self.dtype}{list(self.shape)}"


class EnvSpec(NamedTuple):
    """What an agent must know of an environment.

    Attributes:
      obs_shape: `*O`.
      obs_dtype: name of the dtype observations are stored in: "float32" or "uint8".
      action_low: lower bounds `[A]` in the environment's units, finite.
      action_high: upper bounds `[A]`, each above `action_low`.
      action_shape: of an action as the environment takes it, A numbers in C order; None: `[A]`.
      layout: where the arrays of an observation lie in the vector, in order; `()` where it is one array of `*O`.
      stack: where it is above 0, an observation is the last pictures of the episode, `[stack, H, W, C]`, the newest
        last, and the first of the episode stands in for those before it; so a replay may keep each picture once.
      proprioception: P, numbers that are observed with each picture; their bytes are its last rows, see `envs.mixed`.
    """

    obs_shape: tuple[int, ...]
    obs_dtype: str
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    action_shape: tuple[int, ...] | None = None
    layout: tuple[ObsPart, ...] = ()
    stack: int = 0
    proprioception: int = 0

    @property
    def action_size(self) -> int:
        """Number of action components A."""
        return len(self.action_low)

    @property
    def own_action_shape(self) -> tuple[int, ...]:
        """Shape of an action as the environment takes it."""
        return (self.action_size,) if self.action_shape is None else self.action_shape

    def part(self, name: str) -> ObsPart | None:
        """The array of an observation that has this name, its keys joined by dots; None: there is none."""
        return next((part for part in self.layout if part.name == name), None)

    def stored(self) -> dict[str, Any]:
        """What files say of it: its fields, without those that most environments leave at their defaults."""
        return {name: value for name, value in self._asdict().items() if value != self._field_defaults.get(name, ...)}

    def differences(self, other: EnvSpec) -> list[str]:
        """One line for each field in which another environment differs, "field: this -> other"."""
        pairs = zip(self._fields, map(_in_words, self), map(_in_words, other), strict=True)
        return [f"{name}: {mine} -> {others}" for name, mine, others in pairs if mine != others]


def _in_words(field: Any) -> Any:
    """A field of an `EnvSpec`, the parts of a layout as text."""
    parts = isinstance(field, tuple) and any(isinstance(each, ObsPart) for each in field)
    return ", ".join(map(str, field)) if parts else field


class DeviceEnv(NamedTuple):
    """An environment written in JAX, as pure functions of one environment; more are added by `vmap`.

    An episode that ends is followed by the next one in the same step, so the shapes never change; the true last
    observation stays in `Step.next_obs`, and both ends are told apart.

    Attributes:
      reset: `key -> (env_state, obs [*O])`, the first of an episode. The key is consumed.
      step: `(env_state, action [A], key) -> (env_state, Step)`; the action lies in [-1, 1], and is mapped affinely onto
        the bounds of each component. The key is consumed.
      spec: what an agent must know.
      max_episode_steps: time limit of an episode; there always is one.
      draw: `(obs [*O], size) -> uint8 [size, size, 3]`, the scene as a picture, for agents that see pixels and for
        videos; a function of the observation alone, which an agent from pixels is to tell positions from, so it leaves
        velocities out. None: the environment cannot draw itself.
    """

    reset: Callable[[Array], tuple[Tree, Array]]
    step: Callable[[Tree, Array, Array], tuple[Tree, Step]]
    spec: EnvSpec
    max_episode_steps: int
    draw: Callable[[Array, int], Array] | None = None
