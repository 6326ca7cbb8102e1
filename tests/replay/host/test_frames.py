"""The ring of the host that keeps each picture once, against a plain list of stacks."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from picture_list import GAMMA, PictureList, add_steps, picture_spec, stacked

from ddpg_jax.config.load import load_config
from ddpg_jax.equations.priorities import Prioritization
from ddpg_jax.errors import ConfigError
from ddpg_jax.replay.factory import make_ring
from ddpg_jax.replay.host import ring as ring_module
from ddpg_jax.replay.host.frames import FrameRing, PrioritizedFrameRing
from ddpg_jax.replay.host.prioritized import PrioritizedRing
from ddpg_jax.replay.host.ring import Ring
from ddpg_jax.replay.stacks import StackShape

RULE = Prioritization(alpha=0.7, beta=0.4, beta_end=1.0, epsilon=1e-3, updates=100)


def frame_ring(spec, num_seeds=2, num_envs=2, places=9, n_step=2, rule=None):
    sizes = {"num_envs": num_envs, "capacity": places * num_envs, "n_step": n_step, "gamma": GAMMA}
    if rule is not None:
        return PrioritizedFrameRing(spec, range(num_seeds), **sizes, rule=rule)
    return FrameRing(spec, range(num_seeds), **sizes)


def random_ends(seed, steps, num_seeds, num_envs, rate):
    end, terminal = np.random.default_rng(seed).random((2, steps, num_seeds, num_envs)) < [[[[rate]]], [[[0.5]]]]
    return np.stack([end & terminal, end & ~terminal], 1)


def every_start(ring, steps):
    """Indices of all starts of a ring without priorities, `[S, n]`, and their ages."""
    length, num_envs = len(ring) // ring._shape[2], ring._shape[2]
    ages = np.arange(length - min(length, steps), length)
    return np.tile((ages[:, None] * num_envs + np.arange(num_envs)).ravel(), (ring._shape[1], 1)), ages


@settings(max_examples=60)
@given(st.data())
def test_every_transition_is_that_of_the_list(data):
    num_seeds, num_envs = data.draw(st.integers(1, 2)), data.draw(st.integers(1, 3))
    stack, n_step = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    places, stop = data.draw(st.integers(stack + 1, 14)), data.draw(st.integers(1, 30))
    lanes, rate = (num_seeds, num_envs), data.draw(st.sampled_from([0.0, 0.1, 0.4, 0.8]))
    ends = random_ends(data.draw(st.integers(0, 999)), stop, *lanes, rate)
    cuts = data.draw(arrays(bool, (stop, *lanes), elements=st.sampled_from([False] * 9 + [True])))
    spec = picture_spec(stack)
    steps = stacked(spec, ends, cuts)
    rule = data.draw(st.sampled_from([None, RULE._replace(alpha=0.0)]))  # priorities that are all 1
    ring = frame_ring(spec, *lanes, places, n_step, rule)
    add_steps(ring, steps, 0, stop)
    listed = PictureList(steps, stop, places, stack)
    assert ring.starts == len(listed.starts)
    index, ages = every_start(ring, places - stack)
    index = index if rule is None else index + ring.oldest
    batch = ring.gather(index)
    assert batch.data.obs.dtype == batch.data.next_obs.dtype == np.uint8
    listed.assert_transitions(batch, ages, n_step)
    again = frame_ring(spec, *lanes, places, n_step, rule)
    again.restore(*ring.row_range, ring.rows, ring.extra_state())
    assert_equal(again.gather(index), batch, batch.weight > 0)


def assert_equal(ours, theirs, which):
    """Batches; pictures of those that count."""
    for name in ("obs", "action", "reward", "discount", "next_obs"):
        np.testing.assert_array_equal(getattr(ours.data, name)[which], getattr(theirs.data, name)[which], err_msg=name)
    np.testing.assert_array_equal(ours.weight, theirs.weight)


@settings(max_examples=30)
@given(st.integers(0, 999), st.integers(1, 40), st.sampled_from([0.05, 0.3, 0.8]), st.sampled_from([None, RULE]))
def test_a_restored_ring_goes_on_as_the_one_before(seed, stop, rate, rule):
    spec, more = picture_spec(3), 12
    steps = stacked(spec, random_ends(seed, stop + more, 2, 2, rate))
    ring, again = frame_ring(spec, rule=rule), frame_ring(spec, rule=rule)
    add_steps(ring, steps, 0, stop)
    if rule is not None:
        index = ring.draw(1, 8, 0)
        ring.write_back(index, np.random.default_rng(seed).exponential(size=index.shape))
    rows = ring.rows(*ring.row_range)

    def read(first, stop):
        part = slice(first - ring.row_range[0], stop - ring.row_range[0])
        firsts = [int(rows["begins"][:i].sum()) for i in (part.start, part.stop)]
        return {name: x[slice(*firsts) if "@" in name else part] for name, x in rows.items()}

    again.restore(*ring.row_range, read, ring.extra_state())
    for t in range(stop, stop + more):
        for each in (ring, again):
            each.add(*steps.at(t))
        one, other = ring.sample(2, 8, t), again.sample(2, 8, t)
        np.testing.assert_array_equal(one.index, other.index)
        assert_equal(other, one, one.weight > 0)


def test_rows_that_are_not_those_of_stacks_are_refused():
    spec = picture_spec(2)
    ring = frame_ring(spec)
    add_steps(ring, stacked(spec, random_ends(0, 6, 2, 2, 0.5)), 0, 6)

    def read(first, stop):
        rows = ring.rows(first, stop)
        return rows | {"firsts@begins": rows["firsts@begins"][1:]}

    with pytest.raises(ValueError, match="first pictures"):
        frame_ring(spec).restore(*ring.row_range, read, {})


def test_what_was_sampled_has_memory_of_its_own():
    spec = picture_spec(3)
    ring, steps = frame_ring(spec), stacked(spec, random_ends(1, 20, 2, 2, 0.2))
    add_steps(ring, steps, 0, 12)
    before, batch = ring.sample(2, 8, 0), ring.sample(2, 8, 0)
    batch.data.obs[...] = batch.data.next_obs[...] = 77
    assert_equal(ring.sample(2, 8, 0), before, before.weight > 0)
    kept = before.data.obs.copy()
    add_steps(ring, steps, 12, 20)
    np.testing.assert_array_equal(before.data.obs, kept)


@pytest.mark.parametrize("rule", [None, RULE], ids=["uniform", "prioritized"])
@pytest.mark.parametrize("stop", [1, 5, 6, 7, 9, 10, 25])
def test_every_start_is_drawn_and_none_other(stop, rule):
    spec, places = picture_spec(3), 9
    ring, steps = frame_ring(spec, rule=rule), stacked(spec, random_ends(0, stop, 2, 2, 0.1))
    add_steps(ring, steps, 0, stop)
    drawn = ring.draw(8, 64, 3) - (0 if rule is None else ring.oldest)
    listed = PictureList(steps, stop, places, 3)
    expected = {(t - listed.oldest) * 2 + e for t in listed.starts for e in range(2)}
    assert [set(np.unique(each)) for each in drawn] == [expected] * 2


def test_without_alpha_draws_are_those_of_the_uniform_ring():
    spec, steps = picture_spec(2), stacked(picture_spec(2), random_ends(0, 7, 2, 2, 0.1))
    one, other = frame_ring(spec), frame_ring(spec, rule=RULE._replace(alpha=0.0))
    for ring in (one, other):
        add_steps(ring, steps, 0, 7)
    np.testing.assert_array_equal(one.draw(3, 16, 5), other.draw(3, 16, 5))


def test_an_error_of_a_row_that_is_no_start_any_more_is_dropped():
    spec, steps = picture_spec(3), stacked(picture_spec(3), random_ends(0, 30, 1, 1, 0.1))
    ring = frame_ring(spec, 1, 1, rule=RULE)
    add_steps(ring, steps, 0, 20)
    rows = np.arange(ring.oldest, ring.oldest + 9)[None, None]
    ring.write_back(rows, np.full(rows.shape, 5.0))
    assert ring.oldest_start == ring.oldest + 3
    held = ring.tree.get(rows[0] % 9)[0]
    np.testing.assert_array_equal(held > 0, np.arange(9) >= 3)


@pytest.mark.parametrize(("shape", "places"), [((84, 84, 3), 1000), ((48, 48, 1), 4000), ((64, 64, 9), 10**6)])
def test_memory_is_at_most_1_15_pictures_a_step(shape, places):
    spec = picture_spec(3, shape)
    size = int(np.prod(shape))
    if places <= 4000:
        ring = frame_ring(spec, 1, 1, places)
        assert ring.nbytes == ring._lane_bytes(places) <= 1.15 * size * places
    assert StackShape(places, 3).places <= 1.13 * places


def test_a_million_steps_are_refused_with_the_largest_that_fits(monkeypatch):
    monkeypatch.setattr(ring_module, "available_bytes", lambda: 16 * 10**9)
    with pytest.raises(ConfigError, match=r"replay\.capacity=1000000 needs 23\.8 GB for 1 seeds, 16\.0 GB") as error:
        frame_ring(picture_spec(3, (84, 84, 3)), 1, 1, 10**6)
    largest = int(re.search(r"largest that fits is (\d+)", str(error.value))[1])
    assert 660_000 < largest < 680_000


@pytest.mark.parametrize("rule", [None, RULE], ids=["uniform", "prioritized"])
@pytest.mark.parametrize("free", [1999, 4444, 10_001])
@pytest.mark.parametrize("num_envs", [1, 3])
def test_the_largest_fits_and_one_more_step_does_not(monkeypatch, num_envs, free, rule):
    monkeypatch.setattr(ring_module, "available_bytes", lambda: free)

    def refusal(places):
        with pytest.raises(ConfigError, match="largest that fits") as error:
            frame_ring(picture_spec(2), 2, num_envs, places, rule=rule)
        return int(re.search(r"largest that fits is (\d+)", str(error.value))[1])

    places = refusal(10**6) // num_envs
    ring = frame_ring(picture_spec(2), 2, num_envs, places, rule=rule)
    assert 0 < ring._rows.nbytes + ring._pictures.nbytes <= free
    assert refusal(places + 1) == places * num_envs


def test_a_ring_without_room_for_a_stack_is_refused():
    with pytest.raises(ConfigError, match=r"replay.capacity=6 is 3 steps of 2 environments.*set it to 8 or more"):
        frame_ring(picture_spec(3), places=3)
    assert frame_ring(picture_spec(3), places=4).starts == 0


@pytest.mark.parametrize(
    ("stack", "kind", "expected"),
    [
        (3, "uniform", FrameRing),
        (3, "prioritized", PrioritizedFrameRing),
        (0, "uniform", Ring),  # no promise of stacks: images stay as they come
        (0, "prioritized", PrioritizedRing),
    ],
)
def test_the_promise_of_stacks_chooses_the_ring(stack, kind, expected):
    spec = picture_spec(3)._replace(stack=stack)
    config = load_config(seeds=1, replay={"kind": kind, "capacity": 300})
    assert type(make_ring(config, spec)) is expected
