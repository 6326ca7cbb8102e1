"""Goal-conditioned environments of gymnasium: where their goals stand, and their own rule of what is rewarded.

Such an environment reports `achieved_goal` and `desired_goal` beside its observation, and computes the reward of any
pair by `compute_reward(achieved_goal, desired_goal, info)`, as gymnasium-robotics defined it. Many compute pairs by the
batch and some do not, so this is tried out once, on steps of an environment that nothing else uses.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from ddpg_jax.envs.host.make import reset_env
from ddpg_jax.envs.host.reports import as_flag, as_number, as_observation
from ddpg_jax.errors import ConfigError, EnvironmentFault
from ddpg_jax.types import EnvSpec, HostArray, ObsPart

if TYPE_CHECKING:
    from ddpg_jax.envs.host.make import GymEnv

PairFn: TypeAlias = Callable[[HostArray, HostArray], HostArray]
"""`(achieved [N, G], desired [N, G]) -> [N]`."""

_ACHIEVED, _DESIRED = "achieved_goal", "desired_goal"
_REWARD, _TERMINATED = "compute_reward", "compute_terminated"
_STEPS, _SEED = 4, 1707
_TOLERANCE = 1e-3
"""Between a reward that a step reported and what is computed of its goals, which were float32 meanwhile."""


class GoalTask(NamedTuple):
    """What hindsight must know of an environment.

    Attributes:
      achieved: where in an observation, a vector, the goal stands that is achieved, G numbers.
      desired: likewise of the goal that is desired.
      compute_reward: of steps that achieved one goal where another was desired, float32.
      compute_terminated: whether such steps are terminal, bool; None: the goal makes no difference.
    """

    achieved: slice
    desired: slice
    compute_reward: PairFn
    compute_terminated: PairFn | None


class _Steps(NamedTuple):
    """Steps of an environment: the goals after them, `[N, G]`, and the rewards reported, `[N]`."""

    achieved: HostArray
    desired: HostArray
    reward: HostArray


def goal_task(env: GymEnv, spec: EnvSpec, name: str) -> GoalTask:
    """What hindsight must know of an environment.

    Args:
      env: the environment. It is stepped a few times here, and nothing else may use it.
      spec: what `describe` said of it.
      name: its id, for messages.

    Raises:
      ConfigError: it has no goals, or no rule for them, or one that gives other rewards than its steps.
      EnvironmentFault: it failed.
    """
    achieved, desired = spec.part(_ACHIEVED), spec.part(_DESIRED)
    if achieved is None or desired is None or not env.has_wrapper_attr(_REWARD):
        raise _unfit(name, f"it lacks {_missing(env, spec)}")
    if achieved.shape != desired.shape:
        raise _unfit(name, f"its {_ACHIEVED} has shape {achieved.shape}, its {_DESIRED} {desired.shape}")
    places = slice(achieved.start, achieved.stop), slice(desired.start, desired.stop)
    steps = _take_steps(env, spec, places, name)
    compute_reward = _rule(env, _REWARD, (achieved, desired), steps, name)
    computed = compute_reward(steps.achieved, steps.desired)
    unlike = np.flatnonzero(~np.isclose(computed, steps.reward, rtol=_TOLERANCE, atol=_TOLERANCE))
    if len(unlike):
        pair = f"{computed[unlike[0]]:g} where a step reported the reward {steps.reward[unlike[0]]:g}"
        raise _unfit(name, f"its {_REWARD} gives {pair}: a reward must follow from the two goals alone")
    if not env.has_wrapper_attr(_TERMINATED):
        return GoalTask(*places, compute_reward, None)
    return GoalTask(*places, compute_reward, _rule(env, _TERMINATED, (achieved, desired), steps, name))


def _missing(env: GymEnv, spec: EnvSpec) -> str:
    parts = [part for part in (_ACHIEVED, _DESIRED) if spec.part(part) is None]
    return f"{' and '.join(parts)} in a Dict observation" if parts else f"the method {_REWARD}"


def _unfit(name: str, why: str) -> ConfigError:
    return ConfigError(f'replay.kind="hindsight" cannot be used with env.id={name!r}: {why}')


def _take_steps(env: GymEnv, spec: EnvSpec, places: tuple[slice, slice], name: str) -> _Steps:
    """A few steps of random actions."""
    rng, seen = np.random.default_rng(_SEED), list[HostArray]()
    rewards: list[float] = []
    try:
        reset_env(env, _SEED)
        for _ in range(_STEPS):
            action = rng.uniform(spec.action_low, spec.action_high).reshape(spec.own_action_shape)
            obs, reward, terminated, truncated, _ = env.step(action.astype(env.action_space.dtype))
            vector = as_observation(obs, spec)
            if vector is None:
                raise ValueError("its observation is not one of its space")
            seen.append(vector.astype(spec.obs_dtype))
            rewards.append(as_number(reward))
            if as_flag(terminated) or as_flag(truncated):
                break
    except Exception as error:  # whatever it raises
        raise EnvironmentFault(f"env.id={name!r}, tried out for hindsight: {type(error).__name__}: {error}") from error
    rows = np.stack(seen)
    return _Steps(rows[:, places[0]], rows[:, places[1]], np.array(rewards))


def _rule(env: GymEnv, method: str, parts: tuple[ObsPart, ObsPart], steps: _Steps, name: str) -> PairFn:
    """A rule of the environment, asked by the batch where that gives what it gives pair by pair."""
    one_by_one = _Rule(env.get_wrapper_attr(method), method == _TERMINATED, parts, None, f"{method} of env.id={name!r}")
    many = np.concatenate([steps.desired, np.repeat(steps.achieved, len(steps.achieved), 0)])
    pairs = np.concatenate([steps.achieved] * (1 + len(steps.achieved))), many
    expected = one_by_one(*pairs)
    for info in (_a_dict_for_each, _a_dict):
        by_batch = one_by_one._replace(info=info)
        with suppress(EnvironmentFault):
            if np.allclose(by_batch(*pairs), expected):
                return by_batch
    return one_by_one


class _Rule(NamedTuple):
    """A method of an environment that judges pairs of goals.

    Attributes:
      method: `(achieved, desired, info) -> number`, or numbers.
      flags: whether it says yes or no.
      parts: what it calls a goal that is achieved, and one that is desired.
      info: `N -> info` of a batch; None: it is asked for one pair at a time.
      where: for messages.
    """

    method: Callable[[HostArray, HostArray, Any], Any]
    flags: bool
    parts: tuple[ObsPart, ObsPart]
    info: Callable[[int], Any] | None
    where: str

    def __call__(self, achieved: HostArray, desired: HostArray) -> HostArray:
        """Its judgements of goals `[N, G]`, `[N]`.

        Raises:
          EnvironmentFault: it failed, or gave something else.
        """
        pairs = zip((achieved, desired), self.parts, strict=True)
        a, b = (goals.reshape(-1, *part.shape).astype(part.dtype) for goals, part in pairs)
        read = as_flag if self.flags else as_number
        try:
            if self.info is None:
                found = np.array([read(self.method(*pair, {})) for pair in zip(a, b, strict=True)])
            else:
                found = np.asarray(self.method(a, b, self.info(len(a))))
            judged = found.astype(bool if self.flags else np.float32)
        except Exception as error:  # whatever it raises
            raise EnvironmentFault(f"{self.where} raised {type(error).__name__}: {error}") from error
        if judged.shape != (len(a),) or not np.isfinite(judged).all():
            raise EnvironmentFault(f"{self.where} gave shape {judged.shape} for {len(a)} pairs, or what is not finite")
        return judged


def _a_dict_for_each(count: int) -> Any:
    return [{}] * count


def _a_dict(count: int) -> Any:
    return {}
