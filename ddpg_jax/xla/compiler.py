"""Options of the compiler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
from jax.sharding import Mesh

if TYPE_CHECKING:
    pass


def compiler_options(mesh: Mesh, *, run_once: bool = False) -> dict[str, Any] | None:
    """For the compiler: on a CPU, passes that take a fifth of its time or more and make no program faster are left out.

    A program that runs seldom is compiled by the older emitters of kernels where XLA has them still: in a third less
    time, for one that takes a tenth longer.

    The numbers are the same up to their last bits; with jax 0.10 only those of softmax and normalised layers differ at
    all. Level 0 would change more: it joins no product with a sum.
    """
    if mesh.devices.flat[0].platform != "cpu":
        return None
    older = {"xla_cpu_use_fusion_emitters": False} if run_once and jax.__version_info__ < (0, 11) else {}
    return {"xla_backend_optimization_level": 1} | older
