"""Which passes of the compiler are left out, and where; several programs at a time, and a stop meanwhile."""

import threading
import time
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpg_jax.errors import Interrupted
from ddpg_jax.xla.compiler import compile_all, compiler_options


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


def test_a_call_of_what_was_compiled_compiles_nothing_more(caplog):
    grow, twice = jax.jit(lambda state, x: jnp.tanh(state @ x), donate_argnums=0), jax.jit(lambda x: 2 * x)
    state, x = jnp.eye(3), np.ones((3, 3), np.float32)
    like = jax.eval_shape(lambda: jnp.eye(3))
    programs = compile_all([(grow, (like, x), None), (twice, (x,), None)])
    np.testing.assert_array_equal(programs[1](x), 2 * x)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        np.testing.assert_array_equal(twice(x), 2 * x)
        np.testing.assert_allclose(grow(state, x), np.tanh(x), rtol=1e-6)
        assert "XLA compilation" not in caplog.text
        twice(x[:2])
        assert "XLA compilation" in caplog.text


class Lowering:
    """A function that the compiler works on until it is released."""

    def __init__(self):
        self.lowered, self.release = 0, threading.Event()

    def lower(self, *arguments):
        self.lowered += 1
        return SimpleNamespace(compile=lambda options: self.release.wait(20))


@pytest.mark.parametrize(("answers", "lowered"), [([True], 0), ([False, True], 1), ([False, False, False, True], 2)])
def test_a_stop_is_heard_while_programs_are_compiled(answers, lowered):
    """Before each is lowered, and while the compiler is waited for, which nobody does any longer."""
    program, looks = Lowering(), iter(answers)
    began = time.monotonic()
    with pytest.raises(Interrupted, match="while its programs were compiled"):
        compile_all([(program, (), None)] * 2, lambda: next(looks))
    assert time.monotonic() - began < 10
    assert program.lowered == lowered
    program.release.set()


def test_what_the_compiler_refuses_is_raised():
    broken = SimpleNamespace(lower=lambda: SimpleNamespace(compile=lambda options: 1 // 0))
    with pytest.raises(ZeroDivisionError):
        compile_all([(broken, (), None)])
