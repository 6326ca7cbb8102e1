"""What is read before a gather: nothing else comes of it, and the compiler does not leave it out."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpg_jax.xla.gather import LINE, prefetch


@pytest.mark.parametrize("width", [1, LINE, LINE + 1, 43])
@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_the_rows_stay_what_they_are(width, bad):
    tables = jnp.full((2, 10, width), bad)
    rows = jnp.array([[[9, 0, 3], [3, 3, 1]], [[2, 4, 6], [8, 9, 0]]])
    np.testing.assert_array_equal(jax.jit(jax.vmap(prefetch))(tables, rows), rows)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="only a CPU is helped by it")
@pytest.mark.parametrize(("width", "lines"), [(43, 4), (LINE, 1), (2 * LINE, 2), (1, 1)])
def test_a_number_of_each_line_is_read(width, lines):
    """43 numbers are in four lines of 16 at most, those of the numbers 0, 16, 32 and 42; 16 are one line."""
    table, rows = jnp.zeros((1000, width)), jnp.arange(64)
    text = jax.jit(prefetch).lower(table, rows).compile().as_text()
    shape = re.search(r"= f32\[([\d,]+)\]\S* gather\(", text)[1]
    assert np.prod([int(side) for side in shape.split(",")]) == lines * 64


def test_elsewhere_nothing_is_read():
    table, rows = jax.ShapeDtypeStruct((1000, 43), jnp.float32), jax.ShapeDtypeStruct((64,), jnp.int32)
    text = jax.jit(prefetch).trace(table, rows).lower(lowering_platforms=("cuda",)).as_text()
    assert "gather" not in text
