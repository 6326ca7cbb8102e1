"""Gymnasium environments side by side: S seeds times E environments, stepped together in this process.

The lanes reset their environments themselves, each episode with a seed of its own, so that an episode depends on
(run seed, environment, number of the episode) and on its actions alone. What an environment returns is copied, cast to
the dtypes of the replay and checked before anything else sees it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from ddpg_jax.envs.host.infos import EndedInfo
from ddpg_jax.envs.host.make import GymEnv, describe, reset_env
from ddpg_jax.envs.host.reports import PrecisionWatch, as_flag, as_number, as_observation
from ddpg_jax.envs.host.spaces import in_words, shown
from ddpg_jax.envs.host.timeout import Timeout
from ddpg_jax.envs.host.traits import Traits, traits
from ddpg_jax.equations.actions import to_units
from ddpg_jax.errors import EnvironmentFault, Interrupted
from ddpg_jax.rng import derive_seed
from ddpg_jax.types import EnvSpec, HostArray, Step, StopFn, never_stop

_log = logging.getLogger("ddpg_jax")

EpisodeSeedFn: TypeAlias = Callable[[int, int], int]
"""`(lane, episode) -> seed` of that episode."""

LaneNameFn: TypeAlias = Callable[[int, int], str]
"""`(lane, episode) -> name` for messages."""

MakeFn: TypeAlias = Callable[[], GymEnv]


def training_seeds(seeds: Sequence[int], num_envs: int) -> EpisodeSeedFn:
    """Seeds of training episodes: every (run seed, environment, episode) has its own."""
    return partial(_training_seed, tuple(seeds), num_envs)


def evaluation_seeds(episodes: int) -> EpisodeSeedFn:
    """The bank of evaluation seeds: episode j begins alike for every seed of every run.

    The name of the stream was chosen among five so that the first 10 Pendulum episodes are of average difficulty: a
    solved policy returns -165 on them, -156 on the first 100.
    """
    return partial(_evaluation_seed, episodes)


def _bank_seed(episodes: int, lane: int, episode: int) -> int:
    return _evaluation_seed(episodes, episode % episodes, 0)


def _bank_name(episodes: int, lane: int, episode: int) -> str:
    return f"evaluation episode {episode % episodes} of seed number {episode // episodes}"


def pooled_seeds(episodes: int) -> tuple[EpisodeSeedFn, LaneNameFn]:
    """As `evaluation_seeds`, for lanes that take episodes in turn: number s · episodes + j is episode j of seed s.

    Returns:
      Their seeds, and what they are called in messages.
    """
    return partial(_bank_seed, episodes), partial(_bank_name, episodes)


def _training_seed(seeds: tuple[int, ...], num_envs: int, lane: int, episode: int) -> int:
    return derive_seed(seeds[lane // num_envs], "episode", lane % num_envs, episode)


def _evaluation_seed(episodes: int, lane: int, episode: int) -> int:
    return derive_seed("evaluation bank", lane % episodes + episode * episodes)


class VectorEnv:
    """S x E gymnasium environments.

    Args:
      make: makes one environment.
      shape: (S, E).
      episode_seed: `(lane, episode) -> seed`; lanes are counted along the flattened shape.
      first_lane: number of the first lane here, where the lanes are a part of more.
      num_envs: environments per seed of the whole, for messages; E if None.
      lane_name: `(lane, episode) -> what it is called` in messages; None: by its environment and seed.
      info_keys: numbers of the info at an episode's end that are wanted; see `ended_info`.
      timeout: seconds one environment may take for a step or a reset, as far as `Timeout` can tell; None: any time.
      stop: asked before every environment that is made, reset or stepped.

    Raises:
      EnvironmentFault: an environment cannot be trained, or is not like the first.
      Interrupted: `stop` said so, here or in any method.
    """

    def __init__(
        self,
        make: MakeFn,
        shape: tuple[int, int],
        episode_seed: EpisodeSeedFn,
        *,
        first_lane: int = 0,
        num_envs: int | None = None,
        lane_name: LaneNameFn | None = None,
        info_keys: Sequence[str] = (),
        timeout: float | None = None,
        stop: StopFn = never_stop,
    ) -> None:
        count = shape[0] * shape[1]
        self._shape, self._first_lane, self._num_envs = shape, first_lane, num_envs or shape[1]
        self._episode_seed, self._stop, self._lane_name = episode_seed, stop, lane_name
        self._info = EndedInfo(info_keys, count)
        self._alarm = Timeout(timeout)
        self._all = list(range(count))
        self._envs: list[GymEnv] = []
        try:
            self.spec: EnvSpec = self._make_all(make, count)
        except BaseException:
            self.close()
            raise
        self.traits: Traits = traits(self._envs[0])
        self._watch = PrecisionWatch() if first_lane == 0 else None
        low, high = np.array(self.spec.action_low), np.array(self.spec.action_high)
        self._low, self._high = low, high
        self._action_dtype = self._envs[0].action_space.dtype
        obs_shape = (count, *self.spec.obs_shape)
        self._obs = np.zeros(obs_shape, self.spec.obs_dtype)  # to act on next
        self._next_obs = np.zeros(obs_shape, self.spec.obs_dtype)  # true successors
        self._reward = np.zeros(count, np.float32)
        self._terminated, self._truncated = np.zeros(count, bool), np.zeros(count, bool)
        self._episode = np.full(count, -1, np.int64)
        self._steps = np.zeros(count, np.int64)
        self._seeds = [0] * count

    def reset(self, episode: HostArray | None = None, active: HostArray | None = None) -> HostArray:
        """Begins an episode in every lane, whatever was going on.

        Args:
          episode: numbers of the episodes, `[S, E]`; 0 if None.
          active: lanes to begin in, bool `[S, E]`; all if None. The others are left as they are.

        Returns:
          Observations to act on next, `[S, E, *O]`, a copy.
        """
        count = len(self._envs)
        numbers = np.zeros(count, np.int64) if episode is None else episode.reshape(count)
        for lane in self._all if active is None else np.flatnonzero(active).tolist():
            self._episode[lane] = numbers[lane] - 1
            self._begin_episode(lane)
        return self._reshape(self._obs)

    def step(self, action: HostArray, active: HostArray | None = None) -> Step:
        """Takes one step in every lane; where an episode ends, the next one begins.

        Args:
          action: `[S, E, A]`, in [-1, 1]; mapped affinely onto the bounds of each component.
          active: lanes to step, bool `[S, E]`; all if None. The others report reward 0 and no end.

        Returns:
          Leaves `[S, E, ...]`, copies.

        Raises:
          EnvironmentFault: an environment raised, took too long, or reported a wrong shape, a wrong dtype or a number
            that is not finite; or an action is not finite.
        """
        actions = self.to_env(action.reshape(len(self._envs), -1)).reshape(-1, *self.spec.own_action_shape)
        lanes = self._all if active is None else np.flatnonzero(active).tolist()
        if active is not None:
            self._reward[:], self._terminated[:], self._truncated[:] = 0, False, False
        with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite, and is reported below
            for lane in lanes:
                self._step_lane(lane, actions[lane, ...])
        if not (np.isfinite(self._reward).all() and np.isfinite(self._next_obs).all()):
            raise EnvironmentFault(self._not_finite(actions))
        self._steps += 1 if active is None else active.reshape(-1)
        report = Step(*map(self._reshape, (self._obs, self._next_obs, self._reward, self._terminated, self._truncated)))
        ended = self._terminated | self._truncated
        if ended.any():
            for lane in np.flatnonzero(ended):
                self._begin_episode(int(lane))
            report = report._replace(obs=self._reshape(self._obs))
        return report

    @property
    def instances(self) -> tuple[GymEnv, ...]:
        """The environments, S x E of them."""
        return tuple(self._envs)

    @property
    def ended_info(self) -> HostArray:
        """`info_keys` of each lane at the end of its last episode, `[S, E, K]`; NaN where there is no such number."""
        return self._reshape(self._info.values)

    def to_env(self, action: HostArray) -> HostArray:
        """Maps actions in [-1, 1] to the environment's units, `[..., A] -> [..., A]`, exact at both bounds.

        Raises:
          EnvironmentFault: an action is not finite.
        """
        if not np.isfinite(action).all():
            raise EnvironmentFault(f"the agent's action {action.tolist()} is not finite: its parameters have diverged")
        return to_units(action.astype(np.float64), self._low, self._high).astype(self._action_dtype)

    def close(self) -> None:
        """Closes the environments; one that cannot be closed is warned of, as nothing is lost with it."""
        for env in self._envs:
            try:
                with self._alarm:
                    env.close()
            except Exception as error:  # whatever it raises
                _log.warning("warning: an environment could not be closed: %s: %s", type(error).__name__, error)

    def _make_all(self, make: MakeFn, count: int) -> EnvSpec:
        """Makes the environments, and refuses those that differ from the first: one policy acts in all of them."""
        specs: list[EnvSpec] = []
        for lane in range(count):
            self._listen("made")
            self._envs.append(make())
            specs.append(describe(self._envs[lane]))
            if differing := specs[0].differences(specs[lane]):
                lines, first = "\n  ".join(differing), self._first_lane
                raise EnvironmentFault(
                    f"environments {first} and {first + lane}, counted over seeds x environments, differ though they "
                    f"are made alike:\n  {lines}\nmake them equal, or wrap them in gymnasium.wrappers.RescaleAction"
                )
        return specs[0]

    def _listen(self, doing: str) -> None:
        if self._stop():
            raise Interrupted(f"interrupted while environments were {doing}; start it again")

    def _step_lane(self, lane: int, action: HostArray) -> None:
        self._listen("stepped")
        try:
            with self._alarm:
                obs, reward, terminated, truncated, info = self._envs[lane].step(action)
        except Exception as error:
            raise EnvironmentFault(self._where(lane, action, f"raised {type(error).__name__}: {error}")) from error
        self._next_obs[lane] = self._obs[lane] = seen = self._check_obs(lane, obs)
        if lane == 0 and self._watch is not None and (lost := self._watch.step(seen)) is not None:
            self._watch = None
            self._warn_of_precision(lost)
        try:
            self._reward[lane] = as_number(reward)
            self._terminated[lane], self._truncated[lane] = as_flag(terminated), as_flag(truncated)
        except (TypeError, ValueError, OverflowError) as error:
            report = f"reported reward={reward!r}, terminated={terminated!r}, truncated={truncated!r}: {error}"
            raise EnvironmentFault(self._where(lane, action, report)) from error
        if self._terminated[lane] or self._truncated[lane]:
            self._info.note(lane, info)

    def _begin_episode(self, lane: int) -> None:
        self._listen("reset")
        self._episode[lane] += 1
        self._steps[lane] = 0
        self._seeds[lane] = self._episode_seed(self._first_lane + lane, int(self._episode[lane]))
        try:
            with self._alarm:
                obs, self._seeds[lane] = reset_env(self._envs[lane], self._seeds[lane])
        except Exception as error:
            raise EnvironmentFault(self._where(lane, None, f"reset raised {type(error).__name__}: {error}")) from error
        with np.errstate(over="ignore"):
            self._obs[lane] = seen = self._check_obs(lane, obs)
        if lane == 0 and self._watch is not None:
            self._watch.begin(seen)
        if not np.isfinite(self._obs[lane]).all():
            raise EnvironmentFault(self._where(lane, None, f"reset returned {obs!r}, which is not finite"))

    def _check_obs(self, lane: int, obs: Any) -> HostArray:
        """The observation, if it has the shape and kind of dtype that the space promises."""
        taken = as_observation(obs, self.spec)
        if taken is None:
            layout = self.spec.layout
            wanted = in_words(layout) if layout else f"an array of shape {self.spec.obs_shape}"
            report = f"returned {shown(obs)} as observation; expected {wanted} that casts to {self.spec.obs_dtype}"
            raise EnvironmentFault(self._where(lane, None, report))
        return taken

    def _warn_of_precision(self, components: list[int]) -> None:
        if components:
            _log.warning(
                "warning: observation component %s changes from step to step by less than float32 can tell apart, "
                "and observations are float32 here: subtract an offset, or leave it out",
                ", ".join(map(str, components)),
            )

    def _not_finite(self, actions: HostArray) -> str:
        for lane in range(len(self._envs)):
            if not np.isfinite(self._reward[lane]):
                return self._where(
                    lane, actions[lane], f"reported the reward {self._reward[lane]}, which is not finite"
                )
            bad = np.argwhere(~np.isfinite(self._next_obs[lane]))
            if len(bad):
                component = tuple(int(i) for i in bad[0])
                value = self._next_obs[lane][component]
                return self._where(lane, actions[lane], f"reported observation component {component} = {value}")
        raise AssertionError("called without a number that is not finite")

    def _where(self, lane: int, action: HostArray | None, what: str) -> str:
        number = self._first_lane + lane
        seed_index, env = divmod(number, self._num_envs)
        doing = "" if action is None else f", action {action.tolist()}"
        name = f"environment {env} of seed number {seed_index}"
        if self._lane_name is not None:
            name = self._lane_name(number, int(self._episode[lane]))
        return (
            f"{name} {what} "
            f"(episode {self._episode[lane]} with seed {self._seeds[lane]}, step {self._steps[lane]}{doing})"
        )

    def _reshape(self, values: HostArray) -> HostArray:
        return values.reshape(*self._shape, *values.shape[1:]).copy()
