"""Trees of arrays as arrays by name, and back: what weights and checkpoints are made of.

A typed random key is kept as its data, with the name of its implementation in the array's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ddpg_jax.errors import StorageError
from ddpg_jax.types import HostArray, Tree

_KEY = "#key-"


def name_leaves(tree: Tree, prefix: str = "") -> dict[str, Any]:
    """The leaves of a tree by their paths, as in `params/actor/0/kernel`.

    Args:
      tree: any pytree.
      prefix: what the names begin with; a slash follows it, unless the tree is a single leaf.
    """
    whole = {prefix: tree} if prefix else tree
    leaves = jax.tree_util.tree_leaves_with_path(whole)
    return {_name(jax.tree_util.keystr(path, simple=True, separator="/"), leaf): leaf for path, leaf in leaves}


def to_host(tree: Tree, prefix: str = "") -> dict[str, HostArray]:
    """As `name_leaves`, with contiguous NumPy arrays that share no memory with the device."""
    leaves = jax.device_get(
        {name: jax.random.key_data(x) if _is_key(x) else x for name, x in name_leaves(tree, prefix).items()}
    )
    return {name: np.array(leaf, order="C") for name, leaf in leaves.items()}


def from_host(like: Tree, arrays: Mapping[str, HostArray], prefix: str, source: str) -> Tree:
    """The tree that was named, of NumPy arrays and typed keys.

    Args:
      like: a tree of the expected structure, shapes and dtypes (arrays or `jax.ShapeDtypeStruct`).
      arrays: by name; those of other prefixes are left alone.
      prefix: what the names begin with.
      source: where the arrays come from, for the message.

    Raises:
      StorageError: the arrays are not those expected; it names the first ten, and never casts.
    """
    expected = name_leaves(like, prefix)
    given = {
        name: array
        for name, array in arrays.items()
        if not prefix or name.partition(_KEY)[0] == prefix or name.startswith(f"{prefix}/")
    }
    forms = {name: form(jax.eval_shape(jax.random.key_data, x) if _is_key(x) else x) for name, x in expected.items()}
    differences = [
        f"{name}: expected {forms.get(name, 'nothing')}, found {form(given.get(name))}"
        for name in sorted(expected.keys() | given.keys())
        if forms.get(name, "nothing") != form(given.get(name))
    ]
    if differences:
        shown = "\n  ".join(differences[:10])
        raise StorageError(f"{source} does not fit the configuration; {len(differences)} arrays differ:\n  {shown}")
    leaves = [_restore_type(given[name], leaf) for name, leaf in expected.items()]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def form(array: Any) -> str:
    """Dtype and shape, as in `float32[3, 4]`; `nothing` for None."""
    return "nothing" if array is None else f"{np.dtype(array.dtype).name}{list(array.shape)}"


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _implementation(leaf: Any) -> str:
    """The name of a key's implementation; of one that is only described, it is found by tracing."""
    names: list[str] = []
    jax.eval_shape(lambda key: names.append(str(jax.random.key_impl(key))), leaf)
    return names[0]


def _name(path: str, leaf: Any) -> str:
    return f"{path}{_KEY}{_implementation(leaf)}" if _is_key(leaf) else path


def _restore_type(array: HostArray, like: Any) -> Any:
    return jax.random.wrap_key_data(jnp.asarray(array), impl=_implementation(like)) if _is_key(like) else array
