"""Which components of an observation are positions and which are velocities, by task: what can be hidden by kind.

Read from gymnasium's documentation and sources: MuJoCo's tasks observe `qpos` without what says where the body is, then
`qvel`; Ant observes contact forces too, which are of neither kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

Kind: TypeAlias = Literal["positions", "velocities"]


class Components(NamedTuple):
    """What the components of an observation are.

    Attributes:
      size: how many there are.
      positions: indices of positions and angles, sines and cosines of them included.
      velocities: indices of their derivatives.
    """

    size: int
    positions: tuple[int, ...]
    velocities: tuple[int, ...]


def _split(positions: int, velocities: int, others: int = 0) -> Components:
    """Positions first, then velocities, then what is neither."""
    both = positions + velocities
    return Components(both + others, tuple(range(positions)), tuple(range(positions, both)))


COMPONENTS: dict[str, Components] = {
    "Pendulum-v1": _split(2, 1),
    "MountainCarContinuous-v0": _split(1, 1),
    "HalfCheetah-v5": _split(8, 9),
    "Hopper-v5": _split(5, 6),
    "Walker2d-v5": _split(8, 9),
    "Ant-v5": _split(13, 14, 78),
    "ddpg_jax/HiddenPendulum-v0": _split(2, 1),
    "jax:pendulum": _split(2, 1),
    "jax:hidden-pendulum": _split(2, 1),
}
"""By the id of an environment, in its default form."""


def find_components(identifier: str | None, obs_shape: Sequence[int], kind: Kind) -> tuple[int, ...]:
    """The indices of the components of a kind.

    Args:
      identifier: of the environment; None: it has none.
      obs_shape: what it observes, as a check.
      kind: which are wanted.

    Raises:
      ValueError: the environment is not in the table, or observes something else than it says there.
    """
    found = COMPONENTS.get(identifier or "")
    instead = "name them by HideObservations, as in indices = [2]"
    if found is None:
        raise ValueError(f"the {kind} of {identifier} are not known, only those of {', '.join(COMPONENTS)}: {instead}")
    if tuple(obs_shape) != (found.size,):
        raise ValueError(
            f"the {kind} of {identifier} are known among {found.size} components, but observations have shape "
            f"{tuple(obs_shape)} here: {instead}"
        )
    return found.positions if kind == "positions" else found.velocities


def kept_components(obs_shape: Sequence[int], hidden: Sequence[Any]) -> list[int]:
    """The indices that are left of a vector when some are hidden.

    Args:
      obs_shape: of the observation, one axis.
      hidden: indices to leave out, from 0.

    Raises:
      ValueError: the observation is no vector, an index is out of it, or nothing would be left.
    """
    require_vector(obs_shape)
    size = obs_shape[0]
    wrong = [i for i in hidden if not (isinstance(i, int) and 0 <= i < size)]
    kept = [i for i in range(size) if i not in hidden]
    if wrong or not kept or len(kept) == size:
        raise ValueError(f"indices={list(hidden)}: expected at least one of 0 to {size - 1}, and not all of them")
    return kept


def require_vector(obs_shape: Sequence[int]) -> None:
    """Refuses observations that are not one vector.

    Raises:
      ValueError: they are not.
    """
    if len(obs_shape) != 1:
        raise ValueError(f"observations have shape {tuple(obs_shape)}: expected one axis; flatten them first")


def check_fraction(name: str, value: float) -> float:
    """A probability.

    Raises:
      ValueError: it is not within [0, 1].
    """
    if not 0 <= value <= 1:
        raise ValueError(f"{name}={value}: expected a number from 0 to 1")
    return float(value)


def check_sigma(sigma: float) -> float:
    """A standard deviation.

    Raises:
      ValueError: it is negative or not finite.
    """
    if not 0 <= sigma < float("inf"):
        raise ValueError(f"sigma={sigma}: expected a finite number that is not negative")
    return float(sigma)


def check_rates(rates: Sequence[float]) -> tuple[float, ...]:
    """The rates of memory traces.

    Raises:
      ValueError: there is none, or one is not in (0, 1).
    """
    if not rates or not all(0 < rate < 1 for rate in rates):
        raise ValueError(f"rates={list(rates)}: expected at least one number between 0 and 1, as in [0.5, 0.9, 0.97]")
    return tuple(float(rate) for rate in rates)
