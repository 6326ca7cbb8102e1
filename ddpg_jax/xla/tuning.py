"""Which of the ways in this room, and beside it, a run takes: read off the configuration in one place.

What each of them gains, and the command that measures it again, is in docs/performance.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ddpg_jax.xla.process import limit_to_one_thread, make_core_devices

if TYPE_CHECKING:
    from ddpg_jax.config.schema import Config

NARROW = 128
"""Width of hidden layers from which on arithmetic, and not dispatch, takes the time."""

MAX_ROWS, MAX_SEEDS, MAX_CRITICS = 64, 8, 4
"""Batches, seeds and critics up to which one thread beside narrow networks was faster, with equal numbers."""


class Tuning(NamedTuple):
    """The ways that a run takes; none changes a number but in its last bits.

    Attributes:
      one_thread: XLA keeps to one thread, where the process is the run's alone.
      raw_rows: batches travel as the rows that the ring holds, and are folded on the device (`training/host/transfer`).
      flat_optimizer: an optimiser sees its network as one vector (`agents/factory`).
      squeeze_seed: a lone seed is compiled without its axis.
    """

    one_thread: bool
    raw_rows: bool
    flat_optimizer: bool
    squeeze_seed: bool


def tuning(config: Config) -> Tuning:
    """The ways that a configuration takes; its numbers may be traced."""
    algorithm, on_device, seeds = config.algorithm, config.on_device, len(config.seed_list)
    narrow = max(*algorithm.hidden, *algorithm.critic_widths) < NARROW
    few = seeds <= MAX_SEEDS and getattr(algorithm, "num_critics", 1) <= MAX_CRITICS
    small = narrow and algorithm.batch_size <= MAX_ROWS and few
    return Tuning(
        one_thread=small and not (on_device and config.max_devices > 1),
        raw_rows=narrow,
        flat_optimizer=narrow,
        squeeze_seed=seeds == 1 and (on_device or not narrow),
    )


def configure_process(config: Config, *, tune_process: bool) -> None:
    """Gives XLA the devices and threads with which a run is fastest; call it before jax is used.

    Args:
      config: the run.
      tune_process: whether this process is for that run only, so that its threads may be what suits it.
    """
    if tune_process and tuning(config).one_thread:
        limit_to_one_thread()
    elif config.on_device:
        make_core_devices()
