"""Convolutions by patches and by XLA are one function, and so are their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpg_jax.xla.convolution import by_patches, convolve, plainly


@pytest.mark.parametrize(("shape", "size", "stride"), [((7, 9, 2), 3, 2), ((6, 6, 1), 3, 1), ((5, 8, 3), 1, 3)])
def test_patches_equal_xlas_convolution_and_a_sum_over_windows(shape, size, stride):
    rng = np.random.default_rng(0)
    x, kernel = (
        rng.normal(size=shape).astype(np.float32),
        rng.normal(size=(size, size, shape[-1], 4)).astype(np.float32),
    )

    def with_gradients(f):
        out, pull = jax.vjp(lambda x, kernel: f(x, kernel, stride), jnp.asarray(x), jnp.asarray(kernel))
        return out, *pull(jnp.cos(out))

    patches, plain = (jax.jit(with_gradients, static_argnums=0)(f) for f in (by_patches, plainly))
    for a, b in zip(patches, plain, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    out = np.asarray(patches[0])
    assert out.shape == ((shape[0] - size) // stride + 1, (shape[1] - size) // stride + 1, 4)
    for i, j in np.ndindex(out.shape[:2]):
        seen = x[i * stride : i * stride + size, j * stride : j * stride + size]
        np.testing.assert_allclose(out[i, j], np.tensordot(seen, kernel, 3), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(convolve(jnp.asarray(x), jnp.asarray(kernel), stride).shape, out.shape)


def test_factors_may_be_rounded():
    x, kernel = jnp.full((4, 4, 1), 1.003), jnp.full((3, 3, 1, 1), 1.003)
    rounded = plainly(x, kernel, 1, jnp.bfloat16)
    assert rounded.dtype == np.float32
    np.testing.assert_array_equal(rounded, 9.0)
