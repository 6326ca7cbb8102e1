"""What the windows of a run with memory leave out: Q of windows beside Q of whole evaluation episodes."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from ddpg_jax.agents import algorithms as agents
from ddpg_jax.agents.recurrent import Carry
from ddpg_jax.agents.window_gap import window_gap
from ddpg_jax.config.memory import MemoryConfig
from ddpg_jax.config.plugins import hand_over
from ddpg_jax.envs.device.rollout import fetch
from ddpg_jax.envs.memory import Remembered
from ddpg_jax.errors import ConfigError
from ddpg_jax.runs.inference import LoadedRun
from ddpg_jax.types import Array, HostArray, Seen, TrainState
from ddpg_jax.xla.compiler import compile_all
from ddpg_jax.xla.modes import in_numeric_modes


class WindowGap(NamedTuple):
    """Mean differences between Q of windows and Q of whole episodes, relative to the largest |Q|.

    Attributes:
      warmed: steps since the state of the window was zeros, W numbers that rise.
      gap: `[W, S]`, NaN where no step of the episodes tells.
    """

    warmed: tuple[int, ...]
    gap: HostArray

    @property
    def mean(self) -> HostArray:
        """Of the seeds that tell, `[W]`; NaN where none does."""
        told = np.isfinite(self.gap)
        total = np.where(told, self.gap, 0.0).sum(-1)
        return np.where(told.any(-1), total / np.maximum(told.sum(-1), 1), np.nan)


def warm_ups(memory: MemoryConfig) -> tuple[int, ...]:
    """The steps since zeros that are looked at: none, the burn-in, half a window and a whole one."""
    return tuple(sorted({0, memory.burn_in, memory.length // 2, memory.length}))


def check_memory(run: LoadedRun) -> None:
    """Refuses a run whose agent does not learn from windows.

    Raises:
      ConfigError: the run's agent is none of `[algorithm.memory]`.
    """
    kept = () if run.memory is None else run.memory.begin(1, 1)
    if not (isinstance(kept, Remembered) and isinstance(kept.carry, Carry)):
        raise ConfigError("a window gap is that of an agent with [algorithm.memory], which this run's is not")


@in_numeric_modes
def measure_window_gap(run: LoadedRun, lengths: HostArray, seen: Seen) -> WindowGap:
    """How far Q of windows is from Q of the episodes that a run has played.

    Args:
      run: with memory, by `check_memory`.
      lengths: steps of the episodes, `[S, N]`.
      seen: what was told at each step, leaves `[S, N, T, ...]`; see `play_run`.
    """
    warmed = warm_ups(cast("MemoryConfig", run.config.algorithm.memory))
    with hand_over(run.parts):
        agent = agents.make_agent(run.config, run.spec)

    def of_seed(one: tuple[TrainState, Seen, Array]) -> Array:
        return window_gap(agent, *one, warmed)

    arguments = (run.state, seen, jnp.asarray(lengths, jnp.int32))
    (program,) = compile_all([(jax.jit(partial(jax.lax.map, of_seed)), (arguments,), None)])
    return WindowGap(warmed, np.asarray(fetch(partial(program, arguments)), np.float64).T)
