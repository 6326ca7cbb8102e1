"""Randomness as a counter: every random number is a function of (run key, stream name, step).

Nothing is split in chains, so a run resumed at step t draws what the uninterrupted run would have drawn, and a loop on
the host can be compared number by number with one on the device. Stream names are hashed with CRC-32, which is the same
in every process and version of Python.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ddpg_jax.types import Array

_MASK64 = 2**64 - 1


def stream_id(name: str) -> int:
    """The 32-bit number of a stream's name."""
    return zlib.crc32(name.encode())


def run_keys(seeds: Sequence[int]) -> Array:
    """The typed keys of a run's seeds, `[S]`, from which all device streams derive.

    Args:
      seeds: S numbers in [0, 2^64).
    """
    import jax

    words = np.array([divmod(seed, 2**32) for seed in seeds], np.uint32)
    return jax.vmap(lambda high, low: jax.random.fold_in(jax.random.key(low), high))(words[:, 0], words[:, 1])


def stream_key(key: Array, name: str, step: Array | int = 0) -> Array:
    """The key of one step of a named stream.

    Args:
      key: run key of a seed, typed, `[]`.
      name: name of the stream; streams of different names are independent.
      step: counter, integer `[]`.

    Returns:
      A typed key `[]`, to be consumed once.
    """
    import jax

    return jax.random.fold_in(jax.random.fold_in(key, stream_id(name)), step)


def explore_keys(keys: Array, times: Array, num_envs: int) -> Array:
    """The keys of exploration at given times.

    Args:
      keys: run keys `[S]`.
      times: counters of the loop, `[T]`.
      num_envs: E.

    Returns:
      Keys `[T, S, E]`; those of one time and seed do not depend on the others.
    """
    import jax

    def one(time: Array, key: Array) -> Array:
        return jax.random.split(stream_key(key, "explore", time), num_envs)

    return jax.vmap(jax.vmap(one, (None, 0)), (0, None))(times, keys)


def evaluation_keys(episodes: int) -> tuple[Array, Array]:
    """The bank of evaluation keys of environments written in JAX: episode j is the same for every seed of every run.

    The name of the stream was chosen among five so that the first 10 episodes of Pendulum are of average difficulty: a
    solved policy returns -155 on them, -151 on 2000.

    Args:
      episodes: N.

    Returns:
      Keys to begin the episodes, `[N]`, and keys from which those of their steps derive, `[N]`.
    """
    import jax

    bank = jax.random.key(stream_id("bank of evaluation"))
    keys = jax.vmap(jax.random.fold_in, (None, 0))(bank, np.arange(episodes))
    reset, step = (jax.vmap(partial(stream_key, name=name))(keys) for name in ("reset", "environment"))
    return reset, step


def derive_seed(*words: int | str) -> int:
    """A 32-bit seed that depends on every word, for libraries that want an integer; some take no wider one.

    Adjacent words give unrelated seeds, unlike `seed + i`: two runs with adjacent seeds share no episode.
    """
    entropy = [len(words), *(stream_id(word) if isinstance(word, str) else word for word in words)]
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])


class HostStream:
    """A NumPy stream whose numbers depend on (seed, name, step) alone.

    It holds one Philox generator and moves its counter: 2.5 us a step, against 13 us for a new generator.

    Args:
      seed: the seed of a run.
      name: the stream's name.
    """

    def __init__(self, seed: int, name: str) -> None:
        words = np.random.SeedSequence([seed, stream_id(name)]).generate_state(2, np.uint64)
        self._bits = np.random.Philox(key=words)
        self._generator = np.random.Generator(self._bits)
        self._state: Any = self._bits.state

    def at(self, step: int) -> np.random.Generator:
        """The generator of one step; what was drawn before has no influence.

        Args:
          step: counter, not negative.

        Returns:
          The stream's generator, set to the step. It is shared: use it before the next call.
        """
        counter = np.array([0, 0, step & _MASK64, step >> 64], np.uint64)
        self._state["state"]["counter"] = counter
        self._bits.state = self._state
        return self._generator
