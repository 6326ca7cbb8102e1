"""The sum tree against running sums of plain arrays."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import chi2

from ddpg_jax.replay.host.sum_tree import BYTES_PER_SLOT, SumTree

WHOLE = st.integers(0, 9).map(float)
"""Sums of them are exact, so that no draw lies between two slots."""


def all_slots(tree, seeds, slots):
    return tree.get(np.tile(np.arange(slots), (seeds, 1)))


@settings(max_examples=300)
@given(st.data())
def test_what_is_set_is_found_by_the_running_sum(data):
    seeds, slots = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 40))
    tree, model = SumTree(seeds, slots, top=data.draw(st.sampled_from([1, 2, 3, 8, 1024]))), np.zeros((seeds, slots))
    for _ in range(data.draw(st.integers(1, 5))):
        count = data.draw(st.integers(1, 12))
        where = data.draw(arrays(np.int64, (seeds, count), elements=st.integers(0, slots - 1)))
        values = data.draw(arrays(float, (seeds, count), elements=WHOLE))
        keep = data.draw(st.none() | arrays(bool, (seeds, count)))
        tree.set(where, values, keep)
        for s in range(seeds):
            mine = np.ones(count, bool) if keep is None else keep[s]
            model[s, where[s][mine]] = 0
            np.maximum.at(model[s], where[s][mine], values[s][mine])
        if data.draw(st.booleans()):
            start = data.draw(st.integers(0, slots - 1))
            stop, filled = data.draw(st.integers(start + 1, slots)), data.draw(arrays(float, seeds, elements=WHOLE))
            tree.fill(start, stop, filled)
            model[:, start:stop] = filled[:, None]
        np.testing.assert_array_equal(all_slots(tree, seeds, slots), model)
        np.testing.assert_array_equal(tree.total, model.sum(1))

    if (model.sum(1) > 0).all():
        mass = data.draw(arrays(float, (seeds, 20), elements=st.floats(0, 1, exclude_max=True))) * tree.total[:, None]
        mass[:, 0], mass[:, 1] = 0, np.nextafter(tree.total, 0)
        found = tree.find(mass)
        for s in range(seeds):
            np.testing.assert_array_equal(found[s], np.searchsorted(np.cumsum(model[s]), mass[s], "right"))


@settings(max_examples=500)
@given(st.data())
def test_an_empty_slot_is_never_found_however_sums_are_rounded(data):
    slots = data.draw(st.integers(1, 32))
    sizes = st.sampled_from([0.0, 2.0**-53, 1e-12, 0.1, 0.3, 0.7, 1.0, 1.0 + 2**-52, 3e7, 1e30])
    values = data.draw(arrays(float, (1, slots), elements=sizes))
    tree = SumTree(1, slots, top=data.draw(st.sampled_from([1, 4])))
    tree.set(np.arange(slots)[None], values)
    if values.any():
        edges = np.concatenate([[0.0], np.cumsum(values[0]), tree.total])
        mass = np.concatenate([edges, np.nextafter(edges, 0), np.nextafter(edges, 1e40)])
        mass = mass[mass < tree.total[0]][None]
        assert values[0, tree.find(mass)[0]].all()


def test_a_draw_that_rounding_leads_past_the_end_gets_the_last_slot_that_holds_anything():
    """The largest draw, less the 0.3 of the first half, is rounded up to all of the second, 0.7 in its left slot."""
    tree = SumTree(1, 4, top=1)
    tree.set(np.arange(4)[None], np.array([[0.3, 0.0, 0.7, 0.0]]))
    largest = np.nextafter(tree.total, 0)[None]
    assert largest[0, 0] - 0.3 >= 0.7
    assert tree.find(largest).tolist() == [[2]]


def test_of_several_numbers_for_one_slot_the_largest_stays():
    for order in ([1.0, 5.0, 2.0], [5.0, 2.0, 1.0], [2.0, 1.0, 5.0]):
        tree = SumTree(1, 4, top=1)
        tree.set(np.array([[2]]), np.array([[9.0]]))  # that which was there does not count
        tree.set(np.array([[2, 2, 2]]), np.array([order]))
        assert all_slots(tree, 1, 4).tolist() == [[0, 0, 5, 0]]
        assert tree.total.tolist() == [5]


def test_nothing_drifts():
    rng, tree = np.random.default_rng(0), SumTree(2, 100, top=4)
    for _ in range(2000):
        tree.set(rng.integers(0, 100, (2, 8)), rng.random((2, 8)) * 10.0 ** rng.integers(-8, 8))
    values = all_slots(tree, 2, 100)
    np.testing.assert_allclose(tree.total, values.sum(1), rtol=1e-14)
    tree.fill(0, 100, np.zeros(2))
    assert tree.total.tolist() == [0, 0]


def test_seeds_do_not_disturb_each_other():
    rng = np.random.default_rng(0)
    where, values, mass = rng.integers(0, 50, (3, 40)), rng.random((3, 40)), rng.random((3, 30))
    together = SumTree(3, 50, top=8)
    together.set(where, values)
    found = together.find(mass * together.total[:, None])
    for s in range(3):
        alone = SumTree(1, 50, top=8)
        alone.set(where[s : s + 1], values[s : s + 1])
        assert alone.total == together.total[s]
        np.testing.assert_array_equal(alone.find(mass[s : s + 1] * alone.total), found[s : s + 1])


@pytest.mark.parametrize("slots", [1000, 5000])
def test_draws_are_in_proportion(slots):
    rng, tree, draws = np.random.default_rng(0), SumTree(1, slots), 400_000
    values = rng.pareto(1.5, (1, slots)) + 0.1
    values[:, rng.random(slots) < 0.2] = 0
    tree.set(np.arange(slots)[None], values)
    counts = np.bincount(tree.find(rng.random((1, draws)) * tree.total[:, None])[0], minlength=slots)
    expected = (draws * values / values.sum())[0]
    assert not counts[expected == 0].any()
    counts, expected = counts[expected > 0], expected[expected > 0]
    statistic = ((counts - expected) ** 2 / expected).sum()
    assert chi2.ppf(1e-4, len(counts) - 1) < statistic < chi2.ppf(1 - 1e-4, len(counts) - 1)


def test_memory_is_that_of_the_slots_not_of_the_next_power_of_two():
    for slots in (10**5, 2**17 + 1, 10**6):
        assert SumTree(2, slots).nbytes < 2 * (slots * 1.002 + 2000) * BYTES_PER_SLOT


def test_masses_are_found_as_if_all_below_a_node_were_multiplied():
    rng, slots = np.random.default_rng(0), 5000
    values, tree = rng.exponential(size=(2, slots)), SumTree(2, slots)
    tree.set(np.broadcast_to(np.arange(slots), values.shape), values)
    width = tree.first_slots[1]
    scale = rng.random(len(tree.first_slots)) + 0.1
    share = rng.random((2, 3000))
    found = tree.find_scaled(share, scale)
    scaled = values * np.repeat(scale, width)[:slots]
    bounds = scaled.cumsum(1) / scaled.sum(1, keepdims=True)
    expected = np.stack([b.searchsorted(s, "right") for b, s in zip(bounds, share, strict=True)])
    assert (found != expected).mean() < 1e-3  # where rounding decides
    np.testing.assert_allclose(found, expected, atol=1)
