"""Which passes of the compiler are left out, and where."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from ddpg_jax.xla.compiler import compiler_options


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_passes_of_the_compiler_are_left_out_on_a_cpu_only(platform):
    mesh = SimpleNamespace(devices=np.array([SimpleNamespace(platform=platform)], object))
    often, run_once = compiler_options(mesh), compiler_options(mesh, run_once=True)
    if platform == "gpu":
        assert often is run_once is None
    else:
        assert often == {"xla_backend_optimization_level": 1}
        older = {"xla_cpu_use_fusion_emitters": False} if jax.__version_info__ < (0, 11) else {}
        assert run_once == often | older
