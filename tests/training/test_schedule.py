"""When what is due, against counting."""

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import ddpg_jax as dj
from ddpg_jax.errors import ConfigError
from ddpg_jax.training.schedule import (
    Segment,
    calls_per_iteration,
    chunks,
    is_boundary,
    is_due,
    segments,
    updates_per_call,
)

RATIOS = (0.25, 0.5, 1, 1.5, 3)
SIZES = (1, 2, 16)


def config(num_envs=1, total_steps=100, every=1000, evaluation=0, **algorithm):
    return dj.load_config(
        total_steps=total_steps,
        env={"num_envs": num_envs},
        algorithm=algorithm,
        logging={"every": every},
        evaluation={"every": evaluation},
    )


# Reports


@given(st.integers(0, 60), st.integers(0, 15), st.integers(1, 8))
def test_something_is_due_where_a_multiple_was_passed(step, every, stride):
    passed = range(step - stride + 1, step + 1)
    assert is_due(step, every, stride) == any(every and s % every == 0 for s in passed)


@given(st.integers(1, 120), st.integers(1, 40), st.integers(0, 40), st.integers(1, 9))
@example(25, 10, 0, 4)
@example(24, 5, 8, 3)
@example(7, 9, 9, 9)
def test_chunks_end_at_the_boundaries_and_nowhere_else(total, every, evaluation, num_envs):
    run = config(num_envs, total, every, evaluation)
    last = next(i for i in range(1, total + 1) if i * num_envs >= total)
    ends = [i for i in range(1, last + 1) if is_boundary(run, i * num_envs)]
    found = list(chunks(run, run.logging.every, run.evaluation.every))
    assert [stop for _, stop in found] == ends
    assert [start for start, _ in found] == [0, *ends[:-1]]
    assert all(type(bound) is int for pair in found for bound in pair)


@given(st.integers(1, 120), st.integers(0, 40), st.integers(1, 9))
def test_chunks_of_one_period_end_where_it_is_due(total, every, num_envs):
    run = config(num_envs, total)
    last = -(-total // num_envs)
    ends = [i for i in range(1, last + 1) if i == last or is_due(i * num_envs, every, num_envs)]
    assert [stop for _, stop in chunks(run, every)] == ends


def test_chunks_by_hand():
    assert list(chunks(config(1, 25), 7, 10)) == [(0, 7), (7, 10), (10, 14), (14, 20), (20, 21), (21, 25)]
    assert list(chunks(config(3, 25), 7, 10)) == [(0, 3), (3, 4), (4, 5), (5, 7), (7, 9)]
    assert list(chunks(config(4, 25), 0, 0)) == [(0, 7)]
    assert list(chunks(config(1, 3))) == [(0, 3)]
    assert list(chunks(config(8, 5), 1)) == [(0, 1)]  # more than one multiple within an iteration


# Warm-up and learning


@given(st.integers(0, 40), st.none() | st.integers(0, 40), st.integers(1, 9))
@example(20, None, 3)
@example(0, 0, 1)
@example(0, None, 1)
@example(5, 0, 1)
@example(0, 5, 1)
@example(4, 5, 6)  # both within one iteration
def test_segments_say_of_each_iteration_what_it_does(warmup, starts, num_envs):
    parts = segments(config(num_envs, warmup_steps=warmup, learning_starts=starts))
    assert parts[0].begin == 0
    assert parts[-1].end is None
    for part, following in pairwise(parts):
        assert part.begin < part.end == following.begin
        assert part[2:] != following[2:]  # two that do the same would be one
    starts = warmup if starts is None else starts
    for i in range(60):
        (part,) = (p for p in parts if p.begin <= i and (p.end is None or i < p.end))
        assert part.uniform == (i * num_envs < warmup)
        assert part.learns == (i * num_envs >= starts)
    assert (parts[-1].uniform, parts[-1].learns) == (False, True)


def test_segments_by_hand():
    assert segments(config(warmup_steps=20)) == (Segment(0, 20, True, False), Segment(20, None, False, True))
    assert segments(config(warmup_steps=0)) == (Segment(0, None, False, True),)
    assert segments(config(3, warmup_steps=20, learning_starts=5)) == (
        Segment(0, 2, True, False),
        Segment(2, 7, True, True),
        Segment(7, None, False, True),
    )
    assert segments(config(2, warmup_steps=4, learning_starts=8)) == (
        Segment(0, 2, True, False),
        Segment(2, 4, False, False),
        Segment(4, None, False, True),
    )


# Updates


@pytest.mark.parametrize("num_envs", SIZES)
@pytest.mark.parametrize("ratio", RATIOS)
def test_a_call_makes_the_updates_of_one_step_of_all_environments(ratio, num_envs):
    assert updates_per_call(config(num_envs, updates_per_step=ratio, updates_per_call=7)) == 7
    assert calls_per_iteration(config(num_envs, updates_per_step=ratio, updates_per_call=7)) == (
        Fraction(ratio) * num_envs / 7
    )
    run = config(num_envs, updates_per_step=ratio)
    assert updates_per_call(run) >= 1
    assert abs(updates_per_call(run) - ratio * num_envs) < 1
    assert calls_per_iteration(run) * updates_per_call(run) == Fraction(ratio) * num_envs


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.7, 1.1, 1 / 3])
def test_ratios_that_are_no_binary_fractions_are_meant_as_written(ratio):
    expected = {0.1: "1/10", 0.3: "3/10", 0.7: "7/10", 1.1: "11/10", 1 / 3: "1/3"}[ratio]
    assert calls_per_iteration(config(updates_per_step=ratio, updates_per_call=1)) == Fraction(expected)


def made(run):
    """Updates of a whole run of the device loop: whole calls out of a credit that nothing is lost of."""
    due, calls, credit = calls_per_iteration(run), 0, Fraction(0)
    for i in range(-(-run.total_steps // run.env.num_envs)):
        if any(part.learns and part.begin <= i < (part.end or 10**9) for part in segments(run)):
            credit += due
            calls, credit = calls + credit // 1, credit % 1
    return calls * updates_per_call(run)


@pytest.mark.parametrize("per_call", [None, 1, 4, 7])
@pytest.mark.parametrize("num_envs", SIZES)
@pytest.mark.parametrize("ratio", RATIOS)
def test_all_updates_that_are_owed_are_made_in_whole_calls(ratio, num_envs, per_call):
    for total in (97, 400):
        for starts in (0, 1, 32, 37, 1000):
            run = config(num_envs, total, updates_per_step=ratio, updates_per_call=per_call, learning_starts=starts)
            reached, whole = -(-total // num_envs) * num_envs, updates_per_call(run)
            owed, count = run.updates_owed(reached), made(run)
            assert count % whole == 0
            if starts % num_envs == 0 and starts > 0:
                assert count == owed - owed % whole
            else:  # the iteration in which learning would start waits for the next; at 0 the first step counts too
                assert owed - (num_envs - 1) * ratio - whole < count < owed + 1 + ratio * (starts == 0)


@given(st.sampled_from(RATIOS), st.sampled_from(SIZES), st.integers(0, 50), st.integers(0, 300))
def test_updates_owed_are_the_ratio_of_the_steps_since_learning_started(ratio, num_envs, starts, step):
    run = config(num_envs, updates_per_step=ratio, learning_starts=starts)
    assert run.updates_owed(step) == int(max(0, step - max(starts, 1)) * Fraction(ratio))
    assert config(updates_per_step=ratio, warmup_steps=starts).updates_owed(step) == run.updates_owed(step)


def test_owed_updates_do_not_suffer_from_rounding():
    assert config(updates_per_step=0.1, learning_starts=1).updates_owed(31) == 3  # 30 times 0.1 is 3.0000000000000004
    assert config(updates_per_step=0.7, learning_starts=1).updates_owed(11) == 7  # 10 times 0.7 is 7.000000000000001
    assert config(updates_per_step=1.1, learning_starts=1).updates_owed(11) == 11
    assert config(updates_per_step=0.29, learning_starts=1).updates_owed(101) == 29  # 28.999999999999996


@pytest.mark.parametrize(
    ("ratio", "per_call"),
    [(0.001, None), (0.0005, 1), (1, 2048), (1e-4, None), (1e-4, 4), (1, 5000), (0.5, 65536), (0.123457, 65535)],
)
def test_a_ratio_is_kept_however_rare_the_calls_are(ratio, per_call):
    run = config(updates_per_step=ratio, updates_per_call=per_call)
    rate = calls_per_iteration(run) * updates_per_call(run)
    assert float(rate) == pytest.approx(ratio, rel=1e-6)


@pytest.mark.parametrize("ratio", [1e-8, 1e-12])
def test_a_ratio_too_small_to_be_counted_is_refused(ratio):
    with pytest.raises(ConfigError, match=rf"algorithm\.updates_per_step={ratio}: .* than the device loop can count"):
        calls_per_iteration(config(updates_per_step=ratio))
