"""Which devices and threads a run takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddpg_jax.xla.process import limit_to_one_thread, make_core_devices

if TYPE_CHECKING:
    from ddpg_jax.config.schema import Config


MAX_ROWS, MAX_SEEDS, MAX_CRITICS = 64, 8, 4
"""Batches, seeds and critics up to which one thread beside narrow networks was faster, with equal numbers."""


def configure_process(config: Config, *, tune_process: bool) -> None:
    """Gives XLA the devices and threads with which a run is fastest; call it before jax is used.

    Args:
      config: the run.
      tune_process: whether this process is for that run only, so that its threads may be what suits it.
    """
    algorithm, on_device = config.algorithm, config.on_device
    few = len(config.seed_list) <= MAX_SEEDS and getattr(algorithm, "num_critics", 1) <= MAX_CRITICS
    small = algorithm.narrow and algorithm.batch_size <= MAX_ROWS and few
    if tune_process and small and not (on_device and config.max_devices > 1):
        limit_to_one_thread()
    elif on_device:
        make_core_devices()
