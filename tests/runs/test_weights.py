"""Stored parameters: the same bits come back, or an error that names what is wrong."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file
from tiny_run import finished_run

from ddpg_jax.errors import StorageError
from ddpg_jax.runs.inference import load_run
from ddpg_jax.runs.weights import fitted, open_weights, save_weights, stored_part
from ddpg_jax.types import EnvSpec

SPEC = EnvSpec((3,), "float32", (-2.0, 0.1), (2.0, 1 / 3))


def load_weights(path, like):
    return fitted(open_weights(path), like)


def read_spec(path):
    return open_weights(path).spec


def tree():
    """Nested, of several dtypes, with numbers that are easily lost."""
    rng = np.random.default_rng(0)
    return {
        "params": (
            {"kernel": rng.normal(size=(3, 4)).astype(np.float32), "bias": jnp.arange(4.0)},
            [np.float32(1e-45)],
        ),
        "odd": np.array([np.nan, -0.0, np.inf, -np.inf, 5e-324]),
        "count": jnp.int32(2**31 - 1),
        "flag": np.array([True, False]),
        "image": rng.integers(0, 256, (2, 2, 3), np.uint8),
        "order": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "empty": (),
    }


@pytest.fixture
def path(tmp_path):
    """A file of weights."""
    save_weights(tmp_path / "w.safetensors", tree(), SPEC)
    return tmp_path / "w.safetensors"


def test_the_same_bits_come_back(path):
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), np.asarray(x).dtype), tree())
    loaded = load_weights(path, like)
    assert jax.tree.structure(loaded) == jax.tree.structure(tree())
    for a, b in zip(jax.tree.leaves(loaded), jax.tree.leaves(tree()), strict=True):
        assert np.asarray(a).dtype == np.asarray(b).dtype
        assert np.asarray(a).shape == np.shape(b)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes("C")
    assert {file.name for file in path.parent.iterdir()} == {path.name}


def test_the_environment_comes_back(path):
    assert read_spec(path) == SPEC


def test_a_run_stores_what_its_policy_reads(tmp_path_factory):
    run = finished_run(tmp_path_factory)
    state = load_run(run.directory).state
    part = stored_part(state)
    loaded = load_weights(run.directory / "checkpoints" / "final.safetensors", part)
    for a, b in zip(jax.tree.leaves(loaded), jax.tree.leaves(part), strict=True):
        np.testing.assert_array_equal(a, np.asarray(b), strict=True)
    shapes = {leaf.shape for leaf in jax.tree.leaves(state.params.actor)}
    assert shapes == {(2, 3, 8), (2, 8), (2, 8, 1), (2, 1)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"odd": np.zeros(6)}, "odd: expected float64[6], found float64[5]"),
        ({"odd": np.zeros((5, 1))}, "odd: expected float64[5, 1], found float64[5]"),
        ({"odd": np.zeros(5, np.float32)}, "odd: expected float32[5], found float64[5]"),
        ({"count": jnp.uint32(1)}, "count: expected uint32[], found int32[]"),
        ({"more": np.zeros(2)}, "more: expected float64[2], found nothing"),
        ({"flag": ()}, "flag: expected nothing, found bool[2]"),
    ],
)
def test_other_arrays_than_expected_are_named(path, change, said):
    with pytest.raises(StorageError, match=r"1 arrays? differs?") as caught:
        load_weights(path, tree() | change)
    assert [line for line in str(caught.value).splitlines() if line.startswith("  ")] == [f"  {said}"]


def test_of_many_differences_ten_are_named(tmp_path):
    def many(size):
        return {f"leaf{i:02}": np.zeros(size, np.float32) for i in range(25)}

    save_weights(tmp_path / "w", many(2), SPEC)
    with pytest.raises(StorageError, match="25 arrays") as caught:
        load_weights(tmp_path / "w", many(3))
    named = [line for line in str(caught.value).splitlines() if line.startswith("  leaf")]
    assert [line.split(":")[0].strip() for line in named] == [f"leaf{i:02}" for i in range(10)]


def test_files_that_are_not_ours_are_refused(tmp_path):
    filesystem = {"none": None, "text": b"hello, here is no array at all", "nothing": b"", "huge": b"\xff" * 64}
    for name, content in filesystem.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
    (tmp_path / "folder").mkdir()
    save_file({"count": np.zeros(2)}, tmp_path / "foreign")
    save_file({"count": np.zeros(2)}, tmp_path / "other", {"format": "pt"})
    for name in [*filesystem, "folder", "foreign", "other"]:
        for read in (read_spec, lambda path: load_weights(path, tree())):
            with pytest.raises(StorageError, match=name):
                read(tmp_path / name)


def test_a_broken_description_is_refused(path, tmp_path):
    from ddpg_jax.runs.weights import FORMAT

    whole = SPEC._asdict()
    broken = ["", "[]", "3", "null", json.dumps(whole | {"obs_shape": 3}), json.dumps({"obs_shape": [3]})]
    for text in broken:
        save_file({"count": np.zeros(2)}, tmp_path / "broken", {"format": FORMAT, "spec": text})
        with pytest.raises(StorageError, match="broken"):
            read_spec(tmp_path / "broken")
    save_file({"count": np.zeros(2)}, tmp_path / "broken", {"format": FORMAT})
    with pytest.raises(StorageError, match="broken"):
        read_spec(tmp_path / "broken")


def test_truncated_files_are_refused(path):
    content = path.read_bytes()
    for length in (0, 1, 7, 8, 9, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(StorageError):
            load_weights(path, tree())


def test_a_changed_header_raises_nothing_else(path):
    """Each byte before the arrays flipped: it is refused, or reads, but no foreign error escapes."""
    content, refused = path.read_bytes(), 0
    header = 8 + int.from_bytes(content[:8], "little")
    for i in range(header):
        path.write_bytes(content[:i] + bytes([content[i] ^ 0xFF]) + content[i + 1 :])
        try:
            load_weights(path, tree())
            read_spec(path)
        except StorageError:
            refused += 1
    assert refused > header // 2


def test_what_cannot_be_written_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        save_weights(tmp_path / "file" / "w", tree(), SPEC)
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="folder"):
        save_weights(tmp_path / "folder", tree(), SPEC)
