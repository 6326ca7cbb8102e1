"""Hindsight of the host loop against a list of episodes, sample by sample."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import chi2

from ddpg_jax.envs.host.goals import GoalTask
from ddpg_jax.replay.host.hindsight import HindsightRing
from ddpg_jax.replay.host.ring import Ring
from ddpg_jax.types import EnvSpec, Step

SPEC = EnvSpec((6,), "float32", (-1.0,), (1.0,))
ACHIEVED, DESIRED = slice(0, 2), slice(4, 6)  # with two numbers between them that are nobody's goal


def _reward(achieved, desired):
    """Tells every pair from every other."""
    return (achieved @ [1.0, 2.0] - desired @ [4.0, 8.0]).astype(np.float32)


def _reached(achieved, desired):
    return (achieved == desired).all(-1)


def _passed(achieved, desired):
    return (achieved > desired).any(-1)


PLAIN = GoalTask(ACHIEVED, DESIRED, _reward, None)
ENDING = GoalTask(ACHIEVED, DESIRED, _reward, _reached)
PASSING = GoalTask(ACHIEVED, DESIRED, _reward, _passed)
"""Where what a step achieves, taken for its goal, does not end its episode: its last step does so all the same."""


def _ring(seeds=(0,), *, num_envs=1, capacity=100, n_step=1, task=PLAIN, relabel=0.8):
    return HindsightRing(
        SPEC, seeds, num_envs=num_envs, capacity=capacity, n_step=n_step, gamma=0.5, goals=task, relabel=relabel
    )


def _steps(rng, ends):
    """`(obs, action, step)` for each `ends`, bool `[2, S, E]`; of small whole numbers: goals meet, sums are exact."""
    for terminated, truncated in ends:
        obs, next_obs = rng.integers(0, 3, (2, *terminated.shape, 6)).astype(np.float32)
        action = rng.uniform(-1, 1, (*terminated.shape, 1)).astype(np.float32)
        reward = rng.integers(100, 200, terminated.shape).astype(np.float32)
        yield obs, action, Step(np.full_like(obs, 99), next_obs, reward, terminated, truncated)


def _fill(ring, steps):
    """Adds the steps; the rows of each (seed, environment), oldest first."""
    lanes = {}
    for obs, action, step in steps:
        ring.add(obs, action, step)
        for s, e in np.ndindex(obs.shape[:2]):
            row = dict(zip(("obs", "action", "reward"), (obs[s, e], action[s, e], step.reward[s, e]), strict=True))
            row |= {"next_obs": step.next_obs[s, e], "ends": (step.terminated[s, e], step.truncated[s, e])}
            lanes.setdefault((s, e), []).append(row)
    stored = len(ring) // len({e for _, e in lanes})
    return {lane: rows[-stored:] for lane, rows in lanes.items()}


def _rest_of_episode(rows):
    """The rows up to the first that ends an episode."""
    last = next((i for i, row in enumerate(rows) if any(row["ends"])), len(rows) - 1)
    return rows[: last + 1]


def _transition(rows, goal, n_step, task):
    """`(obs, action, reward, discount, next_obs)` of an episode's rest under a goal (None: its own), by definition."""
    reward, discount = 0.0, 1.0
    for row in rows[:n_step]:
        (terminated, truncated), step_reward = row["ends"], row["reward"]
        if goal is not None:
            step_reward = _reward(row["next_obs"][ACHIEVED], goal)
            if task.compute_terminated is not None:
                reached = task.compute_terminated(row["next_obs"][ACHIEVED], goal)
                terminated, truncated = reached, terminated or truncated
        reward, discount = reward + discount * step_reward, discount * 0.5
        if terminated or truncated:
            break
    obs, next_obs = rows[0]["obs"].copy(), row["next_obs"].copy()
    if goal is not None:
        obs[DESIRED] = next_obs[DESIRED] = goal
    return obs, rows[0]["action"], reward, 0.0 if terminated else discount, next_obs


def _check_all(ring, lanes, n_step, task):
    """Every transition with every goal it may be given is the one of the definition; how many these are."""
    envs, count = 1 + max(e for _, e in lanes), 0
    slots = ring._slots
    for (s, e), rows in lanes.items():
        for age in range(len(rows)):
            rest = _rest_of_episode(rows[age:])
            for ahead in range(len(rest) + 1):
                index = np.zeros((1 + max(s for s, _ in lanes), 1), np.int64)
                index[s] = age * envs + e + ahead * slots
                goal = rest[ahead - 1]["next_obs"][ACHIEVED] if ahead else None
                found = ring.gather(index).data
                for value, expected in zip(found[:5], _transition(rest, goal, n_step, task), strict=True):
                    np.testing.assert_array_equal(value[s, 0], expected)
                count += 1
    return count


@pytest.mark.parametrize(
    "task", [PLAIN, ENDING, PASSING], ids=["ends as stored", "ends at the goal", "ends beyond the goal"]
)
@pytest.mark.parametrize("n_step", [1, 3])
def test_two_episodes_and_the_begin_of_a_third_are_what_the_definition_says(task, n_step):
    ends = np.zeros((9, 2, 1, 1), bool)
    ends[3, 0] = ends[6, 1] = True  # four steps to a termination, three to a time limit, two of an episode in progress
    ring = _ring(n_step=n_step, task=task)
    lanes = _fill(ring, _steps(np.random.default_rng(0), ends))
    assert _check_all(ring, lanes, n_step, task) == (5 + 4 + 3 + 2) + (4 + 3 + 2) + (3 + 2)


@settings(max_examples=40)
@given(st.data())
def test_no_goal_is_of_another_episode_wherever_the_ring_is_and_after_a_restore(data):
    num_seeds, num_envs = data.draw(st.integers(1, 2)), data.draw(st.integers(1, 2))
    n_step, capacity = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 9))
    shape = data.draw(st.integers(1, 14)), 2, num_seeds, num_envs
    ends = data.draw(arrays(bool, shape, elements=st.sampled_from([False, False, True])))
    task = data.draw(st.sampled_from([PLAIN, ENDING]))
    ring = _ring(range(num_seeds), num_envs=num_envs, capacity=capacity, n_step=n_step, task=task)
    lanes = _fill(ring, _steps(np.random.default_rng(0), ends))
    cut = data.draw(arrays(bool, (num_seeds, num_envs)))
    ring.cut(cut)
    for lane in zip(*np.nonzero(cut), strict=True):
        terminated, truncated = lanes[lane][-1]["ends"]
        lanes[lane][-1]["ends"] = terminated, truncated or not terminated
    _check_all(ring, lanes, n_step, task)
    drawn = ring.draw(2, 40, 3)
    for (s, e), rows in lanes.items():
        ahead, row = np.divmod(drawn[s], ring._slots)
        age, env = np.divmod(row, num_envs)
        for at in np.argwhere(env == e):
            assert ahead[tuple(at)] <= len(_rest_of_episode(rows[age[tuple(at)] :]))

    again = _ring(range(num_seeds), num_envs=num_envs, capacity=capacity, n_step=n_step, task=task)
    again.restore(*ring.row_range, ring.rows, ring.extra_state())
    for obs, action, step in _steps(np.random.default_rng(1), ends[::-1]):
        for each in (ring, again):
            each.add(obs, action, step)
        batches = [each.sample(2, 40, 5) for each in (ring, again)]
        for a, b in zip(*([*batch.data[:5], batch.index] for batch in batches), strict=True):
            np.testing.assert_array_equal(a, b)


def test_words_are_the_rows_that_gather_takes_apart():
    ends = np.random.default_rng(3).random((40, 2, 2, 2)) < 0.1
    ring = _ring((0, 1), num_envs=2, capacity=30, task=ENDING)
    _fill(ring, _steps(np.random.default_rng(0), ends))
    index = ring.draw(3, 16, 0)
    rows, batch = ring.words(index).view(ring.row_dtype)[..., 0], ring.gather(index).data
    for name in ("obs", "action", "reward", "next_obs"):
        np.testing.assert_array_equal(rows[name], getattr(batch, name))
    np.testing.assert_array_equal(np.where(rows["terminated"], 0, np.float32(0.5)), batch.discount)


def test_without_relabelling_it_is_the_uniform_ring_and_the_rows_drawn_are_always_the_same():
    ends = np.random.default_rng(3).random((40, 2, 2, 3)) < 0.1
    plain = Ring(SPEC, (4, 9), num_envs=3, capacity=60, n_step=2, gamma=0.5)
    none, most = (_ring((4, 9), num_envs=3, capacity=60, n_step=2, relabel=share) for share in (0.0, 0.9))
    for ring in (plain, none, most):
        _fill(ring, _steps(np.random.default_rng(0), ends))
    np.testing.assert_array_equal(plain.draw(4, 50, 7), none.draw(4, 50, 7))
    np.testing.assert_array_equal(plain.draw(4, 50, 7), most.draw(4, 50, 7) % 60)
    for a, b in zip(plain.sample(4, 50, 7).data[:5], none.sample(4, 50, 7).data[:5], strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_equal(plain.rows(*plain.row_range), most.rows(*most.row_range))  # what a checkpoint keeps


def test_goals_are_uniform_over_the_rest_of_the_episode_and_depend_on_call_and_seed_alone():
    ends = np.zeros((8, 2, 2, 1), bool)
    ends[4, 1] = True
    rings = [_ring(seeds) for seeds in ((4, 9), (9, 4))]
    for ring in rings:
        _fill(ring, _steps(np.random.default_rng(0), ends))
    index = rings[0].draw(100, 1000, 0)
    np.testing.assert_array_equal(index, rings[1].draw(100, 1000, 0)[::-1])
    assert not np.array_equal(index[0], index[1])
    ahead, age = np.divmod(index, rings[0]._slots)
    for t, rest in enumerate((5, 4, 3, 2, 1, 3, 2, 1)):
        counts = np.bincount(ahead[0][age[0] == t], minlength=rest + 1)
        expected = counts.sum() * np.array([0.2, *[0.8 / rest] * rest])
        assert len(counts) == rest + 1
        assert ((counts - expected) ** 2 / expected).sum() < chi2.ppf(1 - 1e-4, rest)


def test_a_draw_leaves_the_ring_as_it_is():
    ring = _ring(capacity=20, task=ENDING, n_step=2)
    _fill(ring, _steps(np.random.default_rng(0), np.random.default_rng(3).random((33, 2, 1, 1)) < 0.2))
    before = ring.rows(*ring.row_range)
    ring.sample(5, 50, 0)
    np.testing.assert_equal(before, ring.rows(*ring.row_range))
