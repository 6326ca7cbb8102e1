"""What XLA is given of this process; settled when jax is first used, once for all."""

from __future__ import annotations

import os
from contextlib import suppress

import jax

from ddpg_jax.xla.memory import available_cores

_one_thread = False


def make_core_devices() -> None:
    """Makes a device of each core of a CPU, so that lanes run beside each other; call it before jax is used.

    One program's products of small networks do not fill two cores: with 16 seeds at 64-64 this more than doubles the
    speed. Where the number of devices was set already, or jax is in use, nothing changes.
    """
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    with suppress(RuntimeError):
        if jax.config.jax_num_cpu_devices < 1:  # pyright: ignore[reportAttributeAccessIssue]
            jax.config.update("jax_num_cpu_devices", available_cores())


def limit_to_one_thread() -> None:
    """Has XLA run all kernels on one thread of a CPU; call it before jax is used.

    It takes longer to hand the kernels of narrow networks to another thread than to run them: without this a step at
    64-64 takes a third more time on the host loop, on the device loop with one seed a quarter (DDPG) or a tenth (TD3).
    The numbers are the same up to `MAX_ROWS`, `MAX_SEEDS` and `MAX_CRITICS`. Where the number of threads is set
    (`NPROC`, `PJRT_NPROC`), or jax is in use, nothing changes.
    """
    global _one_thread
    if {"NPROC", "PJRT_NPROC"} & os.environ.keys() or _jax_in_use():
        return
    os.environ["PJRT_NPROC"] = "1"
    try:
        jax.devices()  # takes its threads now
        _one_thread = True
    finally:
        del os.environ["PJRT_NPROC"]  # of no concern to processes that this one starts


def limited_to_one_thread() -> bool:
    """Whether `limit_to_one_thread` had its effect in this process; programs compiled for other threads differ."""
    return _one_thread


def _jax_in_use() -> bool:
    """Whether devices and threads are settled: jax refuses to set their number then, even to what it is."""
    try:
        jax.config.update("jax_num_cpu_devices", jax.config.jax_num_cpu_devices)  # pyright: ignore[reportAttributeAccessIssue]
    except RuntimeError:
        return True
    return False
