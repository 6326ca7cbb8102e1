"""Which devices and threads a run takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddpg_jax.xla.process import keep_to_one_thread, spread_over_cores

if TYPE_CHECKING:
    from ddpg_jax.config.schema import Config


MOST_ROWS, MOST_SEEDS, MOST_CRITICS = 64, 8, 4
"""Batches, seeds and critics up to which one thread beside narrow networks was faster, with equal numbers."""


def suit_process(config: Config, *, alone: bool) -> None:
    """Gives XLA the devices and threads with which a run is fastest; call it before jax is used.

    Args:
      config: the run.
      alone: whether this process is for that run only, so that its threads may be what suits it.
    """
    algorithm, on_device = config.algorithm, config.on_device
    few = len(config.seed_list) <= MOST_SEEDS and getattr(algorithm, "num_critics", 1) <= MOST_CRITICS
    small = algorithm.narrow and algorithm.batch_size <= MOST_ROWS and few
    if alone and small and not (on_device and config.max_devices > 1):
        keep_to_one_thread()
    elif on_device:
        spread_over_cores()
