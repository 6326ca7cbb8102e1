"""Options of the compiler, and several programs compiled at a time."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import jax
from jax.sharding import Mesh

from ddpg_jax.errors import Interrupted
from ddpg_jax.types import StopFn, never_stop

LOOK_SECONDS = 0.05
"""Between two looks at whether to stop while the compiler is waited for."""


def compiler_options(mesh: Mesh, *, run_once: bool = False) -> dict[str, Any] | None:
    """Options for the compiler: on a CPU, without passes that take long and make no program faster.

    A program that runs seldom (`run_once`) is compiled by XLA's older emitters of kernels where there are any: it is
    compiled sooner and runs a little longer.

    The numbers are the same up to their last bits; with jax 0.10 only those of softmax and normalised layers differ at
    all. Level 0 would change more: it joins no product with a sum.
    """
    if mesh.devices.flat[0].platform != "cpu":
        return None
    older = {"xla_cpu_use_fusion_emitters": False} if run_once and jax.__version_info__ < (0, 11) else {}
    return {"xla_backend_optimization_level": 1} | older


def compile_all(
    programs: Sequence[tuple[Any, tuple[Any, ...], dict[str, Any] | None]], stop: StopFn = never_stop
) -> list[Any]:
    """Compiles several programs at a time.

    The compiler works without the interpreter, which lowers the next program meanwhile. So one that is lowered soon
    comes first: then two cores are busy from early on.

    Args:
      programs: a jitted function, its arguments (or their shapes) and options of the compiler, for each. A function
        that is compiled without options keeps its program: a call of it, with such arguments, compiles nothing more.
      stop: asked before each is lowered, and while the compiler is waited for.

    Returns:
      The compiled programs, in the same order.

    Raises:
      Interrupted: `stop` said so; the compiler works on to the end of what it has begun, and nobody waits for it.
    """
    pool, compiling = ThreadPoolExecutor(), list[Future[Any]]()
    try:
        for each, arguments, options in programs:
            _heed(stop)
            compiling.append(pool.submit(each.lower(*arguments).compile, options))
        while wait(compiling, LOOK_SECONDS).not_done:
            _heed(stop)
        return [each.result() for each in compiling]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # an interrupt does not wait for the compiler


def _heed(stop: StopFn) -> None:
    if stop():
        raise Interrupted("interrupted while its programs were compiled; start it again")
