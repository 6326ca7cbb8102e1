"""Lanes on their devices, the memory that they take, and what the compiler makes of them."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from tiny_device import (
    COLLECTIVES,
    SEEDS,
    TOTAL,
    WARMUP,
    Built,
    assert_close,
    build,
    device_config,
    four,
    four_ended,
    four_on_one,
    host,
    lane_of,
    run,
)

from ddpg_jax.errors import ConfigError
from ddpg_jax.training.device import compile as compiled_module
from ddpg_jax.training.device.compile import lane_mesh, largest_fit, memory_bytes, round_up_lanes
from ddpg_jax.training.factory import start
from ddpg_jax.xla.memory import human_bytes

OPTIONS = compiled_module.compiler_options
LEVEL = "xla_backend_optimization_level"
NEWER_EMITTERS = {"xla_cpu_use_fusion_emitters": True} if jax.__version_info__ < (0, 11) else {}
OF_PLAIN_LAYERS = 0 if jax.__version_info__ < (0, 11) else 1e-4


def default_options(mesh: Any, *, run_once: bool = False) -> dict[str, Any]:
    """Those of a program, over the compiler's defaults instead of the flags of the tests."""
    return NEWER_EMITTERS | (OPTIONS(mesh, run_once=run_once) or {})


@contextmanager
def fully_compiled() -> Iterator[None]:
    jax.config.update("jax_disable_most_optimizations", False)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", True)


# --- Devices.


def test_lanes_are_divided_over_the_devices_and_never_speak(two_devices):
    built, single = four(), four_on_one()
    assert (built.compiled.mesh.size, single.compiled.mesh.size) == (2, 1)
    for compiled in (built.compiled.init, built.compiled.advance, built.compiled.evaluate):
        text = compiled.as_text()
        assert "fusion" in text
        assert not re.search(COLLECTIVES, text)
    one, other = four_ended(), run(single, TOTAL)
    assert_close(one.lane, other.lane, 1e-4)
    lane = built.compiled.init(built.compiled.shard(built.keys), {})
    assert all(len({s.device for s in leaf.addressable_shards}) == 2 for leaf in jax.tree.leaves(lane))
    evaluations = [host(b.compiled.evaluate(b.compiled.shard(one.lane.learner), {})).returns for b in (built, single)]
    np.testing.assert_allclose(*evaluations, rtol=1e-4)


@pytest.mark.slow
def test_perturbed_lanes_never_speak_either(two_devices):
    """The table of normal numbers is on every device, and whether a lane begins an episode is asked of none other."""
    built = build(device_config(exploration={"kind": "parameter", "epsilon": 0.1}))
    assert built.compiled.mesh.size == 2
    text = built.compiled.advance.as_text()
    assert "fusion" in text
    assert not re.search(COLLECTIVES, text)


def test_all_devices_bear_alike_and_no_more_of_them_than_that_takes(two_devices):
    for lanes, shared, shape in ((4, 1, (2, 1)), (2, 1, (2, 1)), (3, 1, (2, 1)), (1, 1, (1, 1)), (3, 2, (1, 2))):
        mesh = lane_mesh(lanes, shared, two_devices)
        assert tuple(mesh.shape[axis] for axis in ("seed", "data")) == shape
    assert [round_up_lanes(lanes, lane_mesh(lanes, devices=two_devices)) for lanes in (1, 2, 3, 4)] == [1, 2, 4, 4]
    eight = [*two_devices] * 4  # only their number counts
    assert [len(lane_mesh(lanes, devices=eight).devices) for lanes in (5, 8, 9, 12, 13, 100)] == [5, 8, 5, 6, 7, 8]
    assert lane_mesh(4, devices=two_devices[1:]).devices.ravel().tolist() == two_devices[1:]
    assert lane_mesh(2).size == 2
    with pytest.raises(ConfigError, match=r"data_parallel=3 needs as many devices, but there are 2"):
        lane_mesh(6, 3, two_devices)


def test_a_batch_shared_by_two_devices_is_the_same_batch(two_devices):
    built = build(device_config(seeds=[4], data_parallel=2), devices=two_devices)
    assert dict(built.compiled.mesh.shape) == {"seed": 1, "data": 2}
    assert "all-reduce" in built.compiled.advance.as_text()
    ended, whole = run(built, WARMUP + 50), run(four_on_one(), WARMUP + 50)
    assert ended.lane.learner.step == 50
    assert_close(lane_of(ended.lane, 0), lane_of(whole.lane, 0), 1e-4)
    assert_close(lane_of(ended.totals[0], 0), lane_of(whole.totals[0], 0), 1e-3)


def test_a_batch_that_cannot_be_shared_is_refused(two_devices):
    config = device_config(seeds=[4], data_parallel=2, algorithm={"batch_size": 5})
    with pytest.raises(ConfigError, match=r"algorithm\.batch_size=5 is not a multiple of data_parallel=2"):
        build(config, devices=two_devices)


FOUR_DEVICES = """
import re, sys
sys.path[:0] = sys.argv[1:]
import conftest
import jax
import tiny_device as t

jax.config.update("jax_disable_most_optimizations", True)
assert len(jax.devices()) == 4
built = t.build(t.device_config(data_parallel=2))
assert dict(built.compiled.mesh.shape) == {"seed": 2, "data": 2}
text = built.compiled.advance.as_text()
assert set(re.findall(t.COLLECTIVES, text)) == {"all-reduce"}
ended, single = t.run(built, t.WARMUP + 50), t.run(t.four_on_one(), t.WARMUP + 50)
t.assert_close(ended.lane, single.lane, 1e-4)
print("as on one device")
"""


@pytest.mark.slow
def test_four_devices_divide_the_seeds_and_share_each_batch_in_pairs():
    """Sums of gradients are all that is exchanged; no lane is gathered where it does not belong."""
    here = Path(__file__).parents[2] / "helpers"
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", FOUR_DEVICES, str(here.parent), str(here)],
        env=os.environ | flags,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout == "as on one device\n", done.stderr


# --- Memory.


def allocated(built: Built) -> int:
    """Bytes that the lanes take on the first device."""
    lane = built.compiled.init(*built.compiled.shard((built.keys, built.hyper)))
    shards = [shard for leaf in jax.tree.leaves(lane) for shard in leaf.addressable_shards]
    return sum(shard.data.nbytes for shard in shards if shard.device == built.compiled.mesh.devices.flat[0])


@cache
def with_large_replay(seeds: int, num_envs: int, kind: str) -> Built:
    changes = {"env": {"num_envs": num_envs}, "algorithm": {"hidden": [7, 5]}}
    config = device_config(seeds=list(SEEDS[:seeds]), replay={"capacity": 50_000, "kind": kind}, **changes)
    return build(config, devices=jax.devices()[:1])


LARGE = pytest.mark.parametrize(
    "large",
    [
        (1, 1, "uniform"),
        *(pytest.param(each, marks=pytest.mark.slow) for each in ((2, 1, "uniform"), (1, 3, "prioritized"))),
    ],
    ids=str,
)


@LARGE
def test_the_memory_of_a_run_is_that_of_its_lanes_and_of_what_a_program_needs_beside(large):
    """Which is little: the replay is written in place and never copied."""
    built = with_large_replay(*large)
    lanes = allocated(built)
    assert lanes > len(built.keys) * 50_000 * 40
    assert lanes < memory_bytes(built.compiled, len(built.keys)) < 1.1 * lanes
    assert built.compiled.advance.memory_analysis().alias_size_in_bytes >= lanes  # donated


def test_the_memory_of_lanes_that_share_their_batches_is_counted_on_every_device(two_devices, learning_nothing):
    config = device_config(seeds=[4], data_parallel=2, env={"id": "jax:probe-constant"}, replay={"capacity": 5000})
    built = build(config, devices=two_devices)
    assert allocated(built) <= memory_bytes(built.compiled, 1)


@pytest.mark.usefixtures("learning_nothing")
def test_a_run_beyond_free_memory_is_refused_before_it_is_allocated(monkeypatch):
    capacity = 2 * 10**9  # no machine could allocate it
    monkeypatch.setattr(compiled_module, "available_bytes", lambda: 10**11)

    def begin(seeds: int) -> Any:
        config = device_config(seeds=seeds, env={"id": "jax:probe-constant"}, replay={"capacity": capacity})
        with ExitStack() as stack:
            return start(config, stack)

    one_lane = 24 * capacity
    with pytest.raises(ConfigError) as error:
        begin(4)
    message = str(error.value)
    expected = f"4 seeds with replay.capacity={capacity} need {human_bytes(2 * one_lane)} on each device"  # of two
    assert message.startswith(expected)
    assert f"{human_bytes(10**11 // 2)} are free; what fits is 2 seeds, or replay.capacity=10416" in message
    with pytest.raises(ConfigError, match="3 seeds with"):
        begin(3)
    assert begin(2).spec.obs_shape == (1,)  # nothing is allocated before the first report is asked for


def test_the_largest_fit_is_the_free_memory_over_that_of_a_lane(monkeypatch):
    compiled = four().compiled
    assert allocated(four()) <= memory_bytes(compiled, 4)
    for pairs in (1, 3, 100):  # of lanes, one on each of two devices
        for more, fit in ((0, pairs), (-2, pairs - 1)):
            free = 2 * (memory_bytes(compiled, 4) * pairs // 2) + more
            monkeypatch.setattr(compiled_module, "available_bytes", lambda free=free: free)
            assert largest_fit(compiled, 4) == 2 * fit
    monkeypatch.setattr(compiled_module, "available_bytes", lambda: 0)
    assert largest_fit(compiled, 4) == 0


@LARGE
def test_no_program_holds_a_second_replay(large):
    compiled = with_large_replay(*large).compiled
    assert compiled.lane_bytes["replay"] > 10**6
    assert compiled.program_bytes < 10**5


# --- What the compiler leaves out.


@pytest.mark.parametrize(
    ("seeds", "algorithm", "tolerance"),
    [
        pytest.param(1, {"name": "td3"}, OF_PLAIN_LAYERS, marks=pytest.mark.slow),
        pytest.param(1, {"hidden": [256, 256]}, OF_PLAIN_LAYERS, marks=pytest.mark.slow),
        pytest.param(2, {"name": "d4pg", "v_min": -9, "v_max": 0}, 1e-4, marks=pytest.mark.slow),
        pytest.param(1, {"architecture": "simba"}, 1e-4, marks=pytest.mark.slow),
    ],
)
def test_what_the_compiler_leaves_out_changes_no_bit_or_the_last_ones(seeds, algorithm, tolerance, monkeypatch):
    """Exponentials and the moments of a layer may come out otherwise, and from jax 0.11 on the rest too."""
    config, found = device_config(seeds=list(SEEDS[:seeds]), algorithm=algorithm), []
    with fully_compiled():
        for options in (default_options, lambda mesh, run_once=False: NEWER_EMITTERS | {LEVEL: 3}):
            monkeypatch.setattr(compiled_module, "compiler_options", options)
            built = build(config, devices=jax.devices()[:1])
            ended = run(built, 60)
            found.append((ended, host(built.compiled.evaluate(ended.lane.learner, {}))))
    assert_close(*found, tolerance)


@pytest.mark.parametrize(("seeds", "shape"), [(1, "f32[7,5]"), (2, "f32[2,7,5]")])
def test_a_seed_that_is_alone_is_compiled_without_its_axis(seeds, shape):
    text = with_large_replay(seeds, 1, "uniform").compiled.advance.as_text()
    loops = [line for line in text.splitlines() if " while(" in line]
    carried = {found for line in loops for found in re.findall(r"f32\[(?:\d,)?7,5\]", line)}
    assert shape in carried  # of the actor; the critics have an axis of their own
