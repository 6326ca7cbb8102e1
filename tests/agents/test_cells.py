"""Cells: equations, first parameters, and windows that are the loop of single steps, resets included."""

import flax.linen as nn
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from ddpg_jax.agents.cells import CELLS, FASTEST, LARGEST_PHASE, SLOWEST, forget

X, H, N = 5, 4, 11
NAMES = tuple(CELLS)
MADE = {name: make(X, H) for name, make in CELLS.items()}
PARAMS = {name: jax.jit(cell.init)(jax.random.key(0)) for name, cell in MADE.items()}


def _inputs(seed, n=N):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=(n, X)), jnp.float32), jnp.asarray(rng.random(n) < 0.3)


def _stirred(params, seed=9):
    """The parameters with noise: no bias stays 0."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: x + jnp.asarray(0.3 * rng.normal(size=x.shape), jnp.float32), params)


def _loop(name):
    """`(params, carry, xs [n, X], first [n]) -> carry [n, ...]` by single steps, forgetting by hand."""
    cell = MADE[name]
    step = jax.jit(lambda params, carry, x: cell.step(params, carry, cell.project(params, x)))

    def loop(params, carry, xs, first):
        carries = []
        for x, begins in zip(xs, np.asarray(first), strict=True):
            carry = step(params, cell.carry() if begins else carry, x)
            carries.append(carry)
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *carries)

    return loop


LOOPS = {name: _loop(name) for name in NAMES}


def _unrolled(name):
    cell = MADE[name]

    def unrolled(params, carry, xs, first):
        return cell.unroll(params, carry, jax.vmap(cell.project, (None, 0))(params, xs), first)

    return jax.jit(unrolled)


UNROLLED = {name: _unrolled(name) for name in NAMES}


def _assert_close(found, expected, atol=2e-6):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=atol)


def _as_in_flax(params, names):
    """Our fused kernels and biases as the layers that flax has for each gate."""
    gates = len(names)
    kernels = {part: jnp.split(params[part], gates, -1) for part in ("input", "recurrent")}
    biases = jnp.split(params["bias"], gates)
    inputs = {f"i{gate}": {"kernel": kernels["input"][i]} for i, gate in enumerate(names)}
    recurrent = {f"h{gate}": {"kernel": kernels["recurrent"][i]} for i, gate in enumerate(names)}
    return inputs, recurrent, biases


def test_the_lstm_is_that_of_flax(call):
    params, (xs, _) = _stirred(PARAMS["lstm"]), _inputs(1)
    inputs, recurrent, biases = _as_in_flax(params, "ifgo")
    for gate, bias in zip("ifgo", biases, strict=True):
        recurrent[f"h{gate}"]["bias"] = bias
    flax_cell = nn.OptimizedLSTMCell(H)
    h, c = jnp.sin(jnp.arange(2.0 * H)).reshape(2, H)
    (c_flax, h_flax), _ = flax_cell.apply({"params": inputs | recurrent}, (c, h), xs[0])
    found = call(lambda p, carry, x: MADE["lstm"].step(p, carry, MADE["lstm"].project(p, x)), params, (h, c), xs[0])
    _assert_close(found, (h_flax, c_flax), 1e-6)


def test_the_gru_is_that_of_flax(call):
    params, (xs, _) = _stirred(PARAMS["gru"]), _inputs(1)
    inputs, recurrent, biases = _as_in_flax(params, "rzn")
    for gate, bias in zip("rzn", biases, strict=True):
        inputs[f"i{gate}"]["bias"] = bias
    recurrent["hn"]["bias"] = params["recurrent_bias"]
    h = jnp.sin(jnp.arange(1.0 * H))
    h_flax, _ = nn.GRUCell(H).apply({"params": inputs | recurrent}, h, xs[0])
    found = call(lambda p, carry, x: MADE["gru"].step(p, carry, MADE["gru"].project(p, x)), params, h, xs[0])
    _assert_close(found, h_flax, 1e-6)


def test_the_lru_is_a_diagonal_complex_recurrence(call):
    """Written out in NumPy's complex numbers, with what is told of it."""
    params, (xs, _), cell = _stirred(PARAMS["lru"]), _inputs(1), MADE["lru"]
    p = {name: np.asarray(leaf, np.float64) for name, leaf in params.items()}
    factor = np.exp(-np.exp(p["decay"]) + 1j * np.exp(p["phase"]))
    kernel = p["input"][:, :H] + 1j * p["input"][:, H:]
    h = np.sin(np.arange(H)) + 1j * np.cos(np.arange(H))
    carry = jnp.asarray(h.real, jnp.float32), jnp.asarray(h.imag, jnp.float32)
    h = factor * h + np.exp(p["scale"]) * (np.asarray(xs[0]) @ kernel)
    found = call(lambda p, carry, x: cell.step(p, carry, cell.project(p, x)), params, carry, xs[0])
    _assert_close(found, (h.real, h.imag), 5e-6)
    told = np.concatenate([h.real, h.imag]) @ p["output"]
    gelu = 0.5 * told * (1 + np.tanh(np.sqrt(2 / np.pi) * (told + 0.044715 * told**3)))
    np.testing.assert_allclose(call(cell.output, params, found), gelu, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=10)
@given(seed=st.integers(0, 2**16))
def test_a_window_is_the_loop_of_its_steps(name, seed):
    """From a carry that is not 0, which counts only where the first step does not begin an episode."""
    (xs, first), params = _inputs(seed), _stirred(PARAMS[name])
    rng = np.random.default_rng(seed)
    carry = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), MADE[name].carry())
    _assert_close(UNROLLED[name](params, carry, xs, first), LOOPS[name](params, carry, xs, first), 5e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_window_across_an_end_is_two_windows(name):
    """To the bit where steps are made in order; what comes before an end has no influence on what comes after."""
    (xs, _), params, carry = _inputs(2), PARAMS[name], MADE[name].carry()
    begins = jnp.arange(N) == 7
    whole, changed = (UNROLLED[name](params, carry, x, begins) for x in (xs, xs.at[:7].add(1.0)))
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(changed), strict=True):
        np.testing.assert_array_equal(a[7:], b[7:])
        assert (a[:7] != b[:7]).any()
    parts = [LOOPS[name](params, carry, part, np.zeros(len(part), bool)) for part in (xs[:7], xs[7:])]
    _assert_close(whole, jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts))


@pytest.mark.parametrize("name", NAMES)
def test_a_window_in_bfloat16_is_close_and_not_the_same(name):
    (xs, first), carry = _inputs(3), MADE[name].carry()
    cell = CELLS[name](X, H, "bfloat16")
    project = jax.vmap(cell.project, (None, 0))
    rough = jax.jit(lambda p: cell.unroll(p, carry, project(p, xs), first))(PARAMS[name])
    exact = UNROLLED[name](PARAMS[name], carry, xs, first)
    _assert_close(rough, exact, 0.05)
    assert all((a != b).any() for a, b in zip(jax.tree.leaves(rough), jax.tree.leaves(exact), strict=True))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves((rough, cell.output(PARAMS[name], carry))))


@pytest.mark.parametrize(("name", "gates", "keeps"), [("lstm", 4, 1), ("gru", 3, 1)])
def test_kernels_are_orthogonal_gate_by_gate_and_memory_is_kept_at_first(name, gates, keeps):
    params = jax.jit(CELLS[name](6, 8).init)(jax.random.key(1))
    for part, size in (("input", 6), ("recurrent", 8)):
        kernels = np.asarray(params[part]).reshape(size, gates, 8).swapaxes(0, 1)
        for kernel in kernels:
            np.testing.assert_allclose(kernel @ kernel.T, np.eye(size), atol=1e-5)
        assert len(np.unique(kernels[:, 0, 0])) == gates
    bias = np.asarray(params["bias"]).reshape(gates, 8)
    assert (bias[keeps] == 1).all()
    assert not np.delete(bias, keeps, 0).any()
    assert not np.any(params.get("recurrent_bias", 0))


def test_an_lru_begins_inside_its_ring_and_with_states_of_the_size_of_its_inputs():
    params = jax.jit(CELLS["lru"](16, 512).init)(jax.random.key(1))
    modulus, phase = np.exp(-np.exp(params["decay"])), np.exp(params["phase"])
    assert FASTEST <= modulus.min() < FASTEST + 0.05
    assert SLOWEST - 0.01 < modulus.max() < SLOWEST + 1e-6
    assert 0 < phase.min() < 0.05
    assert LARGEST_PHASE - 0.05 < phase.max() <= LARGEST_PHASE
    np.testing.assert_allclose(np.exp(params["scale"]), np.sqrt(1 - modulus**2), rtol=1e-3)
    np.testing.assert_allclose(np.std(params["input"]), 32**-0.5, rtol=0.05)
    np.testing.assert_allclose(np.std(params["output"]), 512**-0.5, rtol=0.05)


@pytest.mark.parametrize("name", NAMES)
def test_a_carry_begins_at_zero_and_is_forgotten_where_an_episode_begins(name):
    carry = MADE[name].carry()
    assert all(leaf.dtype == jnp.float32 and not leaf.any() for leaf in jax.tree.leaves(carry))
    filled = jax.tree.map(jnp.ones_like, carry)
    _assert_close(forget(filled, jnp.bool_(True)), carry, 0)
    _assert_close(forget(filled, jnp.bool_(False)), filled, 0)
