"""Trees as arrays by name, and back."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpg_jax.errors import StorageError
from ddpg_jax.runs.pytrees import form, from_host, name_leaves, to_host


class Pair(NamedTuple):
    a: object
    b: object


def tree():
    return Pair({"x": jnp.arange(3.0)}, (jnp.int32(7), jax.random.split(jax.random.key(3), 2), ()))


def test_leaves_are_named_by_their_paths():
    assert list(name_leaves(tree(), "here")) == ["here/a/x", "here/b/0", "here/b/1#key-threefry2x32"]
    assert list(name_leaves(tree())) == ["a/x", "b/0", "b/1#key-threefry2x32"]
    assert list(name_leaves(jnp.zeros(2), "leaf")) == ["leaf"]
    assert name_leaves((), "none") == {}


def test_a_tree_comes_back_with_its_keys():
    arrays = to_host(tree(), "here") | {"other": np.zeros(1)}
    assert all(type(x) is np.ndarray for x in arrays.values())
    back = from_host(jax.eval_shape(tree), arrays, "here", "file")
    assert jax.tree.structure(back) == jax.tree.structure(tree())
    np.testing.assert_array_equal(back.a["x"], [0, 1, 2])
    assert back.b[1].dtype == jax.random.key(0).dtype
    assert (jax.random.key_data(back.b[1]) == jax.random.key_data(tree().b[1])).all()


def test_what_is_fetched_shares_no_memory():
    x = np.zeros(3)
    to_host({"x": x})["x"][:] = 1
    assert (x == 0).all()


def test_of_many_arrays_that_differ_the_first_ten_are_named():
    expected = {f"x{i:02}": np.zeros(2) for i in range(12)}
    with pytest.raises(StorageError, match="12 arrays differ:") as error:
        from_host(expected, {name: np.zeros(3) for name in expected}, "", "file")
    assert [line.split(":")[0].strip() for line in str(error.value).split("\n")[1:11]] == [
        f"x{i:02}" for i in range(10)
    ]
    assert "x10" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "array", "said"),
    [
        ("here/b/0", np.int64(7), r"here/b/0: expected int32\[\], found int64\[\]"),
        ("here/a/x", None, r"here/a/x: expected float32\[3\], found nothing"),
        ("here/more", np.zeros(2), r"here/more: expected nothing, found float64\[2\]"),
        ("here/b/1#key-threefry2x32", np.zeros((2, 3), np.uint32), r"expected uint32\[2, 2\], found uint32\[2, 3\]"),
    ],
)
def test_other_arrays_are_refused(name, array, said):
    arrays = to_host(tree(), "here") | {name: array}
    arrays = {name: x for name, x in arrays.items() if x is not None}
    with pytest.raises(StorageError, match=f"file does not fit the configuration; 1 arrays differ:\n  .*{said}"):
        from_host(tree(), arrays, "here", "file")


def test_a_key_of_another_implementation_is_another_array():
    arrays = to_host(jax.random.key(0, impl="rbg"), "key")
    assert list(arrays) == ["key#key-rbg"]
    with pytest.raises(StorageError, match="2 arrays differ"):
        from_host(jax.random.key(0), arrays, "key", "file")


def test_forms():
    assert (form(np.zeros((2, 3), np.uint8)), form(None)) == ("uint8[2, 3]", "nothing")
