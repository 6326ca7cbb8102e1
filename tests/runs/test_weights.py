"""Stored parameters: the same bits come back, or an error that names what is wrong."""

import json
import os
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file
from tiny_run import finished_run

from ddpg_jax.agents.algorithms import make_agent
from ddpg_jax.config.load import load_config
from ddpg_jax.errors import StorageError
from ddpg_jax.rng import run_keys
from ddpg_jax.runs.directory import RunDirectory
from ddpg_jax.runs.inference import load_run
from ddpg_jax.runs.weights import (
    fit,
    init_from_weights,
    open_weights,
    read_weights,
    restore_best,
    save_best,
    save_weights,
    stored_part,
)
from ddpg_jax.types import EnvSpec

SPEC = EnvSpec((3,), "float32", (-2.0, 0.1), (2.0, 1 / 3))


def load_weights(path, like):
    return fit(open_weights(path), like)


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


# --- No bit is read silently.


@pytest.mark.parametrize("share", [20, pytest.param(1, marks=pytest.mark.slow)], ids=["some bits", "every bit"])
def test_no_flipped_bit_is_read_silently(path, share):
    content, silent, said, tried = path.read_bytes(), [], [], 0
    for bit in range(0, 8 * len(content), share - (share > 1)):  # 19: each place within a byte comes round
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        tried += 1
        try:
            open_weights(path)
            silent.append(bit)
        except StorageError as error:
            said.append(str(error))
    print(f"{tried} flips, {len(silent)} silent")
    assert silent == []
    assert len(said) == tried > 400
    assert all(line.isprintable() for line in said)
    path.write_bytes(content)
    assert len(open_weights(path).sha256) == 64


def test_files_without_a_digest_are_read_and_told_apart(path, tmp_path):
    """As version 0.1.0 wrote up to commit c8ec0f3."""
    arrays = open_weights(path).arrays
    save_file(arrays, tmp_path / "old", {"format": "ddpg_jax weights 1", "spec": json.dumps(SPEC._asdict())})
    old = open_weights(tmp_path / "old")
    assert old.sha256 is None
    assert {name: x.tobytes() for name, x in old.arrays.items()} == {name: x.tobytes() for name, x in arrays.items()}


def test_metadata_of_others_are_refused(path, tmp_path):
    """Else a digest whose name has lost a bit would be none."""
    metadata = {"format": "ddpg_jax weights 1", "spec": json.dumps(SPEC._asdict()), "rha256": "0" * 64}
    save_file(open_weights(path).arrays, tmp_path / "other", metadata)
    with pytest.raises(StorageError, match=r"its metadata are .*rha256"):
        open_weights(tmp_path / "other")


def test_pipes_devices_links_and_files_without_arrays_are_no_weights(path, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "link").symlink_to(path)
    save_weights(tmp_path / "empty", {}, SPEC)
    for name in ("pipe", "device", "link", "empty"):
        with pytest.raises(StorageError, match=name):
            open_weights(tmp_path / name)


def test_weights_of_no_seed_begin_no_run(tmp_path):
    save_weights(tmp_path / "w", {"params": np.float32(1)}, SPEC)
    begin = init_from_weights(open_weights(tmp_path / "w"))
    with pytest.raises(StorageError, match="holds the weights of no seed"):
        begin(SimpleNamespace(step=np.zeros(2)))


@pytest.mark.parametrize(("before", "after"), [("plain", "compensated"), ("compensated", "plain"), ("plain", "plain")])
def test_a_run_begins_with_moments_however_those_were_summed(before, after, tmp_path):
    def learner(kind, size):
        config = load_config(algorithm={"normalize_observations": True, "observation_moments": kind, "hidden": [4]})
        state = jax.vmap(make_agent(config, SPEC).init)(run_keys([1, 2]))
        return state._replace(stats=jax.tree.map(lambda x: x + size, state.stats))

    save_weights(tmp_path / "w", stored_part(learner(before, 3.0)), SPEC)
    begun = init_from_weights(open_weights(tmp_path / "w"))(learner(after, 0.0)).stats.obs
    for found, start in zip(begun[:3], (0.0, 0.0, 1.0), strict=True):
        np.testing.assert_array_equal(found, np.full_like(found, start + 3.0))
    assert not any(leaf.any() for leaf in jax.tree.leaves(begun[3:]))
    odd = {name: x for name, x in open_weights(tmp_path / "w").arrays.items() if name != "stats/obs/mean"}
    with pytest.raises(StorageError, match="stats/obs/mean: expected"):
        init_from_weights(open_weights(tmp_path / "w")._replace(arrays=odd))(learner(after, 0.0))


@pytest.mark.parametrize(
    "change",
    [
        {"obs_shape": [[3]]},
        {"obs_shape": [-3]},
        {"obs_dtype": "object"},
        {"action_low": []},
        {"action_low": ["low"]},
        {"action_high": [2.0, 0.3, 1.0]},
        {"action_high": [-3.0, 0.3]},
        {"action_low": {"0": 1.0}},
        {"obs_shape": [1] * 40},
        {"obs_dtype": "\x1b[2J"},
    ],
    ids=str,
)
def test_a_forged_description_is_refused_in_one_printable_line(tmp_path, change):
    text = json.dumps(SPEC._asdict() | change)
    save_file({"count": np.zeros(2)}, tmp_path / "forged", {"format": "ddpg_jax weights 1", "spec": text})
    with pytest.raises(StorageError, match="forged: its description of the environment cannot be read") as error:
        open_weights(tmp_path / "forged")
    assert str(error.value).isprintable()


# --- The best.


def value_of(directory):
    return float(read_weights(directory, "best").arrays["params"][0])


def test_the_best_weights_are_those_of_the_checkpoint_that_a_run_goes_on_from(tmp_path):
    run, other = RunDirectory.create(tmp_path / "run", "a"), RunDirectory.create(tmp_path / "other", "b")
    with pytest.raises(StorageError, match=r"holds no best\.safetensors"):
        read_weights(run, "best")
    for step in (25, 50):
        save_best(run, step, {"params": np.array([step], np.float32)}, SPEC)
        assert value_of(run) == step
    assert restore_best(run, 25)
    assert value_of(run) == 25
    assert restore_best(other, 50, source=run)
    assert value_of(other) == 50
    assert restore_best(other, 50)
    assert restore_best(run, None)
    assert not run.best_weights.exists()
    assert not restore_best(run, 75)  # lost
    assert not run.best_weights.exists()


def test_the_best_weights_are_not_written_where_another_owns_the_directory(tmp_path):
    run = RunDirectory.create(tmp_path / "run", "a")
    (run.path / "run.lock").unlink()
    with RunDirectory(tmp_path / "run").lock(), pytest.raises(StorageError, match="was replaced"):
        save_best(run, 25, {"params": np.zeros(1)}, SPEC)
    assert not run.checkpoints.exists()
