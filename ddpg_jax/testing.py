"""Checks that a part of one's own keeps its contract, to be called in one's own tests; each trains for a moment.

from ddpg_jax.testing import check_env

def test_my_environment_can_be_trained():
check_env(MyEnv)
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ddpg_jax.config.load import load_config, merge
from ddpg_jax.config.schema import Config
from ddpg_jax.errors import CallbackError, Interrupted
from ddpg_jax.runs.loggers.logger import Logger
from ddpg_jax.training.callbacks import CallbackFn, CallbackReport
from ddpg_jax.training.train import resume_run, train
from ddpg_jax.types import Agent, DeviceEnv, EnvSpec, Row, Step

_SHORT: dict[str, Any] = {
    "seeds": 2,
    "total_steps": 120,
    "env": {"max_episode_steps": 25},
    "algorithm": {"hidden": [8], "batch_size": 8, "warmup_steps": 40},
    "replay": {"capacity": 1000},
    "evaluation": {"every": 60, "episodes": 2},
    "logging": {"every": 30, "tensorboard": False},
    "checkpoint": {"every": 30, "min_seconds": 0.0},
}
"""A run of a second or two."""

_PENDULUM = EnvSpec((3,), "float32", (-2.0,), (2.0,))


def check_env(make: Callable[..., Any], config: Config | None = None) -> None:
    """Checks that an environment of gymnasium can be trained, and that a run on it goes on to the bit.

    Args:
      make: makes one.
      config: the run; None: a short one.

    Raises:
      AssertionError: an interrupted run ends otherwise than one that was not: the same seed and actions do not give the
        same episode, or something outlives one.
      DdpgJaxError: it cannot be trained at all, and why.
    """
    _check_resume(config or load_config(**_SHORT), env=make)


def check_device_env(env: DeviceEnv, steps: int = 300) -> None:
    """Checks the functions of an environment written in JAX, and that a run on it goes on to the bit.

    Args:
      env: the environment.
      steps: taken with random actions, in four lanes.

    Raises:
      AssertionError: a shape, a dtype, a number that is not finite, a time limit that does not end an episode, or a
        lane that depends on another.
      DdpgJaxError: it cannot be trained at all, and why.
    """
    roll = jax.jit(lambda order: jax.vmap(lambda i: _roll(env, jax.random.fold_in(jax.random.key(0), i), steps))(order))
    played: Step = roll(jnp.arange(4))
    obs_shape = (4, steps, *env.spec.obs_shape)
    for name, shape in (("obs", obs_shape), ("next_obs", obs_shape), ("reward", (4, steps))):
        found: Any = getattr(played, name)
        assert found.shape == shape, f"{name} has shape {found.shape[2:]}, expected {shape[2:]}"
        assert np.isfinite(np.asarray(found, np.float64)).all(), f"{name} is not finite with random actions"
    for name in ("terminated", "truncated"):
        assert getattr(played, name).dtype == bool, f"{name} is {getattr(played, name).dtype}, expected bool"
    ended = np.asarray(played.terminated | played.truncated)
    longest = max(int(np.diff(np.flatnonzero(np.concatenate([[True], lane, [True]]))).max()) for lane in ended)
    assert longest <= env.max_episode_steps, f"an episode of {longest} steps, beyond {env.max_episode_steps}"
    turned: Step = roll(jnp.arange(4)[::-1])
    for name, a, b in zip(Step._fields, played, turned, strict=True):
        assert np.array_equal(np.asarray(a), np.asarray(b)[::-1]), f"{name} of a lane depends on where it stands"
    changes = {"env": {"max_episode_steps": None}}
    _check_resume(load_config(**merge(_SHORT, changes)), env=env)


def check_agent(make_agent: Callable[..., Agent], config: Config | None = None) -> None:
    """Checks that an algorithm trains on both loops, acts within [-1, 1], and that its runs go on to the bit.

    Args:
      make_agent: `(config, spec) -> Agent`.
      config: of the algorithm and its exploration; None: the defaults, small.

    Raises:
      AssertionError: an interrupted run ends otherwise than one that was not; or an action is out of bounds.
      DdpgJaxError: it cannot be trained at all, and why.
    """
    given = {} if config is None else config.model_dump(include={"algorithm", "exploration"})
    for identifier in ("Pendulum-v1", "jax:pendulum"):
        short = load_config(**merge(merge(_SHORT, given), {"env": {"id": identifier}}))
        _check_resume(short, make_agent=make_agent, callbacks=[lambda report: _check_policy(make_agent, report)])


def check_logger(make: Callable[[], Logger]) -> None:
    """Checks that a logger hears a whole run, and that nothing it does raises.

    Args:
      make: makes one.

    Raises:
      Exception: what it raised, which a run would only warn of.
    """
    with tempfile.TemporaryDirectory() as folder:
        logger = _Loud(make())
        train(load_config(**_SHORT), Path(folder) / "run", loggers=[logger], quiet=True)
    for error in logger.errors:
        raise error
    lacking = {"write", "sync", "close"} - logger.heard
    assert not lacking, f"{', '.join(lacking)} was never called"


def check_callback(callback: CallbackFn) -> None:
    """Checks that a callback returns what can be recorded, the same in equal runs.

    Raises:
      AssertionError: it raised, returned what cannot be recorded, or differs between equal runs.
    """
    found: list[list[Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in ("first", "second"):
            try:
                run = train(load_config(**_SHORT), Path(folder) / name, callbacks=[callback], quiet=True)
            except CallbackError as error:
                raise AssertionError(str(error)) from error
            except Interrupted:
                return  # it asked for a stop
            rows = map(json.loads, (run.directory / "metrics.jsonl").read_text().splitlines())
            found.append([row for row in rows if row["event"] == "callback"])
    assert found[0] == found[1], "what it adds to the record differs between two equal runs"


def _roll(env: DeviceEnv, key: Any, steps: int) -> Step:
    """An environment played with random actions, leaves `[steps, ...]`."""
    reset_key, key = jax.random.split(key)
    state, _ = env.reset(reset_key)

    def step(state: Any, i: Any) -> tuple[Any, Step]:
        act_key, step_key = jax.random.split(jax.random.fold_in(key, i))
        action = jax.random.uniform(act_key, (env.spec.action_size,), minval=-1.0)
        return env.step(state, action, step_key)

    return jax.lax.scan(step, state, jnp.arange(steps))[1]


def _check_policy(make_agent: Callable[..., Agent], report: CallbackReport) -> None:
    """Acts on ordinary and on extreme observations."""
    agent = make_agent(report.config, _PENDULUM, **report.config.algorithm.kwargs)
    state = jax.tree.map(lambda leaf: leaf[0], report.state)
    for scale in (0.0, 1.0, 1e3):
        obs = scale * jnp.ones(_PENDULUM.obs_shape)
        action = np.asarray(agent.policy(state, obs))
        assert action.shape == (1,), f"an action has shape {action.shape}, expected (1,)"
        assert (abs(action) <= 1).all(), f"the action {action} on {obs} is not within [-1, 1]"


def _check_resume(config: Config, callbacks: list[CallbackFn] | None = None, **parts: Any) -> None:
    """A run that is stopped in its middle and taken up again leaves what one leaves that was not."""
    middle = config.total_steps // 2

    def stop(report: CallbackReport) -> Mapping[str, Any] | None:
        if report.step == middle:
            report.stop()
        return None

    with tempfile.TemporaryDirectory() as folder:
        whole = train(config, Path(folder) / "whole", callbacks=callbacks or [], quiet=True, **parts)
        cut = Path(folder) / "cut"
        try:
            train(config, cut, callbacks=[*(callbacks or []), stop], quiet=True, **parts)
        except Interrupted:
            resume_run(cut, callbacks=callbacks or [], quiet=True, **parts)
        for name in ("metrics.jsonl", "checkpoints/final.safetensors"):
            same = (whole.directory / name).read_bytes() == (cut / name).read_bytes()
            assert same, f"{name} of a run that was stopped after {middle} steps and resumed is not that of a whole run"


class _Loud:
    """A logger that notes what it was told, and what the one within raises.

    Args:
      logger: the one within.
    """

    def __init__(self, logger: Logger) -> None:
        self._logger, self.heard, self.errors = logger, set[str](), list[Exception]()

    def __getattr__(self, event: str) -> Callable[..., Any]:
        within = getattr(self._logger, event)

        def call(*arguments: Any) -> Any:
            try:
                returned = within(*arguments)
            except Exception as error:
                self.errors.append(error)
                raise
            self.heard.add(event)
            return returned

        return call

    def write(self, rows: list[Row]) -> None:
        """As in `Logger`."""
        self.__getattr__("write")(rows)

    def sync(self) -> int:
        """As in `Logger`."""
        return int(self.__getattr__("sync")())

    def close(self) -> None:
        """As in `Logger`."""
        self.__getattr__("close")()
