"""Environments that misbehave, or that make one thing visible; a fresh process imports this module by its name."""

import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.classic_control import PendulumEnv
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete, Tuple
from gymnasium.wrappers import TimeLimit

UNIT = Box(-1, 1, (2,), np.float32)
PLAIN = Box(-np.inf, np.inf, (3,), np.float32)


def lane_seed(lane: int, episode: int) -> int:
    """A seed that tells its lane and episode."""
    return 1000 * lane + episode


def short_pendulum(limit: int) -> gymnasium.Env:
    return TimeLimit(PendulumEnv(), limit)


class Walk(gymnasium.Env):
    """The observation is (seed of the episode, steps taken, sum of the actions); the reward is the step's number.

    Args:
      end: step that ends the episode, from 1.
      flags: (terminated, truncated) of that step.
      reuse: every observation is the same array, written in place.
    """

    observation_space = PLAIN
    action_space = UNIT

    def __init__(self, end: int = 4, flags: tuple[bool, bool] = (False, True), reuse: bool = False) -> None:
        self._end, self._flags, self._reuse = end, flags, reuse
        self._obs = np.zeros(3, np.float32)

    def _report(self, *values: float) -> np.ndarray:
        self._obs[:] = values
        return self._obs if self._reuse else self._obs.copy()

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        self.number, self.steps, self._sum = seed, 0, np.float32(0)
        return self._report(seed % 2**20, 0, 0), {}

    def step(self, action: np.ndarray) -> tuple[Any, ...]:
        self.steps += 1
        self._sum += action.sum()
        flags = self._flags if self.steps == self._end else (False, False)
        obs = self._report(self.number % 2**20, self.steps, self._sum)
        if self._reuse:
            action[...] = np.nan  # it takes the action's array for its own, too
        return obs, float(self.steps), *flags, {}


def _raise(report: tuple) -> tuple:
    raise RuntimeError("the arm came off")


def _end(code: int | signal.Signals, report: tuple) -> tuple:
    if isinstance(code, signal.Signals):
        os.kill(os.getpid(), code)
    sys.exit(code)


def _hang(report: tuple) -> tuple:
    time.sleep(3600)
    return report


def _put(place: int, change: Callable[[Any], Any], report: tuple) -> tuple:
    return *report[:place], change(report[place]), *report[place + 1 :]


def _component(value: float) -> Callable[[tuple], tuple]:
    return partial(_put, 0, lambda obs: np.array([obs[0], value, obs[2]]))


def _obs(change: Callable[[np.ndarray], Any]) -> Callable[[tuple], tuple]:
    return partial(_put, 0, change)


def _other(place: int, value: Any) -> Callable[[tuple], tuple]:
    return partial(_put, place, lambda _: value)


FAULTS: dict[str, Callable[[tuple], tuple]] = {
    "observation nan": _component(np.nan),
    "observation inf": _component(np.inf),
    "observation beyond float32": _component(1e300),
    "reward nan": _other(1, float("nan")),
    "reward -inf": _other(1, -np.inf),
    "reward none": _other(1, None),
    "reward beyond float32": _other(1, 1e300),
    "reward of two": _other(1, np.ones(2)),
    "reward complex": _other(1, 1j),
    "reward text": _other(1, "1.5"),
    "shape longer": _obs(lambda obs: np.append(obs, 0)),
    "shape with batch": _obs(lambda obs: obs[None]),
    "shape of one": _obs(lambda obs: obs[:1]),
    "shape scalar": _obs(lambda obs: obs[0]),
    "dtype object": _obs(lambda obs: obs.astype(object)),
    "dtype text": _obs(lambda obs: obs.astype(str)),
    "dtype complex": _obs(lambda obs: obs.astype(complex)),
    "ragged list": _obs(lambda obs: [[1.0], [1.0, 2.0], 3.0]),
    "list of text": _obs(lambda obs: ["a", "b", "c"]),
    "mapping": _obs(lambda obs: {"obs": obs}),
    "none": _obs(lambda obs: None),
    "reward empty": _other(1, np.zeros(0)),
    "terminated int": _other(2, 2),
    "terminated text": _other(2, "yes"),
    "truncated none": _other(3, None),
    "terminated array": _other(2, np.array([True, False])),
    "four values": lambda report: report[:4],
    "raises": _raise,
    "exits": partial(_end, 7),
    "killed": partial(_end, signal.SIGKILL),
    "hangs": _hang,
}


class Faulty(Walk):
    """Does one thing wrong, once.

    Args:
      fault: key of `FAULTS`.
      lane: where, if the seeds are those of `lane_seed`.
      step: after this many good steps of an episode; -1: at the reset.
      episode: number of the episode.
    """

    def __init__(self, fault: str, lane: int, step: int, episode: int = 0) -> None:
        super().__init__()
        self._fault, self._at = FAULTS[fault], (1000 * lane + episode, step)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        obs, info = super().reset(seed=seed)
        return (self._fault((obs,))[0] if (seed, -1) == self._at else obs), info

    def step(self, action: np.ndarray) -> tuple[Any, ...]:
        here = (self.number, self.steps)
        report = super().step(action)
        return self._fault(report) if here == self._at else report


class Bytes(Walk):
    """Observes an image; `dtype` is that of the arrays, whatever the space says."""

    observation_space = Box(0, 255, (4, 2, 3), np.uint8)

    def __init__(self, dtype: Any = np.uint8) -> None:
        super().__init__()
        self._dtype = dtype

    def _report(self, *values: float) -> np.ndarray:
        return np.full((4, 2, 3), values[1], self._dtype)


class Recorder(Walk):
    """Keeps the actions it was given; the bounds may be anything.

    Args:
      low: bounds of the actions, of the dtype of the space.
      high: likewise.
      end: step that ends the episode, from 1.
    """

    def __init__(self, low: np.ndarray, high: np.ndarray, end: int = 1000) -> None:
        super().__init__(end)
        self.action_space = Box(low, high, dtype=low.dtype.type)
        self.actions: list[np.ndarray] = []

    def step(self, action: np.ndarray) -> tuple[Any, ...]:
        self.actions.append(action.copy())
        return super().step(np.zeros(1))


class Forks(Walk):
    """Starts a process of its own that outlives it by some seconds, and holds whatever files it was born with."""

    def reset(self, **arguments: Any) -> tuple[Any, dict]:
        if os.fork() == 0:
            time.sleep(12)
            os._exit(0)
        return super().reset(**arguments)


class Who(Walk):
    """Observes (process, seed of the episode, steps taken)."""

    def _report(self, *values: float) -> np.ndarray:
        return np.array([os.getpid(), *values[:2]], np.float32)


def _box(low: Any, high: Any, dtype: Any = np.float32) -> Box:
    return Box(np.array(low, dtype), np.array(high, dtype), dtype=dtype)


REFUSED: dict[str, tuple[gymnasium.Space, gymnasium.Space, str]] = {
    "discrete action": (PLAIN, Discrete(3), r"Discrete\(3\).* is not a Box.*continuous actions"),
    "several discrete actions": (PLAIN, MultiDiscrete([2, 3]), r"MultiDiscrete.* is not a Box"),
    "action mapping": (PLAIN, Dict(arm=UNIT), r"Dict\(.* is not a Box"),
    "integer action": (PLAIN, _box([0], [5], np.int32), r"int32.* is not floating"),
    "infinite action": (PLAIN, _box([-1, -1], [1, np.inf]), r"component 1 .*inf.*must be finite.*env.action_range"),
    "degenerate action": (PLAIN, _box([-1, 2], [1, 2]), r"component 1 has bounds \[2.0, 2.0\].*must be below"),
    "matrix of no action": (PLAIN, Box(-1, 1, (2, 0), np.float32), r"shape \(2, 0\).*at least one"),
    "no action": (PLAIN, Box(-1, 1, (0,), np.float32), r"shape \(0,\).*at least one"),
    "choice in a mapping": (Dict(eye=PLAIN, leg=Discrete(2)), UNIT, r"'leg' .* is Discrete\(2\).*FilterObservation"),
    "image in a tuple": (
        Tuple((Dict(eye=Box(0, 255, (4, 4, 3), np.uint8)), PLAIN)),
        UNIT,
        r"part '0.eye' of the observation is an image.*FilterObservation",
    ),
    "empty mapping": (Dict(), UNIT, r"observation space Dict\(\) holds no number"),
    "discrete observation": (Discrete(4), UNIT, r"observation space Discrete\(4\) is not a Box"),
}
"""`(observation space, action space, message)` of what cannot be trained."""


class Refused(Walk):
    """Has spaces that cannot be trained."""

    closed = 0

    def __init__(self, which: str) -> None:
        super().__init__()
        self.observation_space, self.action_space, _ = REFUSED[which]

    def close(self) -> None:
        Refused.closed += 1


class Blind(Walk):
    """Cannot draw itself, and says so."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__()


class Headless(Walk):
    """Says that it can draw itself, but the machine has no display."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012 - as gymnasium declares it

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__()
        self.render_mode = render_mode

    def render(self) -> np.ndarray:
        raise RuntimeError("no OpenGL context")


for _name in ("Refused", "Walk", "Faulty", "Blind", "Headless"):
    gymnasium.register(f"{_name}-v0", f"custom_envs:{_name}")
