"""Lanes against bare gymnasium environments, and against environments that misbehave."""

import re
from fractions import Fraction
from functools import partial

import custom_envs as custom
import gymnasium
import jax
import numpy as np
import pytest
from gymnasium.envs.classic_control import PendulumEnv
from gymnasium.spaces import Box
from gymnasium.wrappers import TimeLimit
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ddpg_jax.agents.algorithms import make_agent
from ddpg_jax.config.load import load_config
from ddpg_jax.envs.host.make import make_env
from ddpg_jax.envs.host.vector import VectorEnv, evaluation_seeds, training_seeds
from ddpg_jax.errors import EnvironmentFault, Interrupted
from ddpg_jax.replay.host.ring import Ring

GAMMA = np.float32(0.99)


def _actions(steps, shape, size, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (steps, *shape, size)).astype(np.float32)


def _lanes(make, shape=(1, 1), episode_seed=custom.lane_seed):
    return VectorEnv(make, shape, episode_seed)


def _ring(lanes, seeds=(0,), num_envs=1, n_step=1):
    return Ring(lanes.spec, seeds, num_envs=num_envs, capacity=1000, n_step=n_step, gamma=float(GAMMA))


# Actions


@st.composite
def boxes(draw):
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    finite = st.floats(width=32 if dtype is np.float32 else 64, allow_nan=False, allow_infinity=False)
    a, b = (draw(arrays(dtype, 3, elements=finite)) for _ in range(2))
    assume((a != b).all())
    return np.minimum(a, b), np.maximum(a, b)


@settings(max_examples=350)  # of three boxes each
@given(boxes(), arrays(np.float32, (4, 3), elements=st.floats(-1, 1, width=32)))
def test_the_action_map_is_affine_exact_at_the_ends_and_always_inside(box, inner):
    low, high = box
    env = custom.Recorder(low, high)
    lanes = _lanes(lambda: env)
    lanes.reset()
    actions = np.stack([-np.ones(3), np.ones(3), np.zeros(3), *inner]).astype(np.float32)
    for action in actions:
        lanes.step(action[None, None])
    given_low, given_high, *others = env.actions
    np.testing.assert_array_equal(given_low, low)
    np.testing.assert_array_equal(given_high, high)
    for action, received in zip(actions[2:], others, strict=True):
        assert received.dtype == low.dtype
        assert ((low <= received) & (received <= high)).all()
        for a, u, v, x in zip(action, low, high, received, strict=True):
            u, v, x = (Fraction(float(y)) for y in (u, v, x))
            exact = u + (Fraction(float(a)) + 1) / 2 * (v - u)
            tolerance = 4 * Fraction(float(np.finfo(low.dtype).eps)) * max(abs(u), abs(v))
            assert abs(x - exact) <= tolerance + Fraction(float(np.finfo(low.dtype).smallest_subnormal))


@pytest.mark.parametrize(
    "exploration", [{"sigma": 1.0}, {"epsilon": 1.0}, {"kind": "parameter", "sigma": 1.0}], ids=lambda e: next(iter(e))
)
def test_exploration_is_in_units_of_half_the_range_of_each_component(exploration):
    """Under bounds that are unequal and not symmetric, actions spread over the whole of each range."""
    low, high = np.array([-3.0, 10.0], np.float32), np.array([1.0, 10.5], np.float32)
    env = custom.Recorder(low, high, end=4)
    lanes = _lanes(lambda: env)
    config = load_config(algorithm={"hidden": [8], "final_scale": 1e-4}, exploration=exploration)
    agent, key = make_agent(config, lanes.spec), jax.random.key(0)
    act, state, act_state = jax.jit(agent.act), agent.init(jax.random.key(1)), agent.init_act(1)
    obs, first = lanes.reset(), np.ones((1, 1), bool)
    for t in range(300):
        action, act_state = act(state, act_state, obs[0], first[0], jax.random.fold_in(key, t)[None])
        step = lanes.step(np.asarray(action)[None])
        obs, first = step.obs, step.terminated | step.truncated
    inner = (np.stack(env.actions) - low) / (high - low)
    assert inner.shape == (300, 2)
    assert ((inner >= 0) & (inner <= 1)).all()
    assert (np.quantile(inner, 0.1, axis=0) < 0.2).all()
    assert (np.quantile(inner, 0.9, axis=0) > 0.8).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_action_that_is_not_finite_is_refused_and_reaches_no_environment(value):
    env = custom.Recorder(*np.array([[-1, -1], [1, 1]], np.float32))
    lanes = _lanes(lambda: env)
    lanes.reset()
    with pytest.raises(EnvironmentFault, match="not finite"):
        lanes.step(np.array([[[0.5, value]]], np.float32))
    assert env.actions == []


# Ends of episodes


@pytest.mark.parametrize(("limit", "steps"), [(5, 13), (None, 202)])
def test_a_time_limit_keeps_the_true_last_observation_and_begins_the_next_episode(limit, steps):
    seeds = training_seeds([3, 8], 2)
    lanes = _lanes(partial(make_env, "Pendulum-v1", limit, {}), (2, 2), seeds)
    limit = limit or 200
    bare = [PendulumEnv() for _ in range(4)]
    actions = _actions(steps, (2, 2), 1)
    obs = lanes.reset()
    first = [env.reset(seed=seeds(i, 0))[0] for i, env in enumerate(bare)]
    np.testing.assert_array_equal(obs.reshape(4, 3), first)
    for t, action in enumerate(actions):
        step = lanes.step(action)
        raw = [env.step(2 * a) for env, a in zip(bare, action.reshape(4, 1), strict=True)]
        np.testing.assert_array_equal(step.next_obs.reshape(4, 3), [o for o, *_ in raw])
        np.testing.assert_array_equal(step.reward.ravel(), np.array([r for _, r, *_ in raw], np.float32))
        assert (step.truncated == ((t + 1) % limit == 0)).all()
        assert not step.terminated.any()
        if step.truncated.all():
            fresh = [env.reset(seed=seeds(i, (t + 1) // limit))[0] for i, env in enumerate(bare)]
            np.testing.assert_array_equal(step.obs.reshape(4, 3), fresh)
            assert (step.obs != step.next_obs).any(-1).all()
        else:
            np.testing.assert_array_equal(step.obs, step.next_obs)
    lanes.close()


def test_a_termination_of_gymnasium_is_one():
    lanes = _lanes(partial(make_env, "InvertedPendulum-v5", None, {}), (1, 2), training_seeds([0], 2))
    lanes.reset()
    ended = np.zeros(2, int)
    for _ in range(60):  # pushed aside, the pole falls
        step = lanes.step(np.ones((1, 2, 1), np.float32))
        assert not step.truncated.any()
        fallen = np.abs(step.next_obs[0, :, 1]) > 0.2
        np.testing.assert_array_equal(step.terminated[0], fallen)
        assert (np.abs(step.obs[0, :, 1]) < 0.02).all() or not fallen.any()
        ended += fallen
    assert (ended > 1).all()
    lanes.close()


@pytest.mark.parametrize(
    ("flags", "discount"), [((False, True), GAMMA), ((True, False), 0), ((True, True), 0)], ids=str
)
@pytest.mark.parametrize("n_step", [1, 3])
def test_through_the_replay_a_time_limit_keeps_its_value_and_a_termination_has_none(flags, discount, n_step):
    lanes = _lanes(partial(custom.Walk, end=3, flags=flags))
    ring = _ring(lanes, n_step=n_step)
    obs = lanes.reset()
    for action in _actions(6, (1, 1), 2):
        step = lanes.step(action)
        ring.add(obs, action, step)
        obs = step.obs
    data = ring.gather(np.arange(6)[None]).data
    left = np.minimum([3, 2, 1, 3, 2, 1], n_step)  # rows folded
    ends = np.array([1, 2, 3, 1, 2, 3]) + left - 1
    np.testing.assert_array_equal(data.next_obs[0, :, 0], [0, 0, 0, 1, 1, 1])  # never of another episode
    np.testing.assert_array_equal(data.next_obs[0, :, 1], ends)
    np.testing.assert_array_equal(data.obs[0, :, 1], [0, 1, 2, 0, 1, 2])
    expected = np.where((ends == 3) & (discount == 0), 0, GAMMA**left)
    np.testing.assert_allclose(data.discount[0], expected, rtol=1e-6)


# Copies


def test_an_environment_that_reuses_its_array_gives_the_transitions_of_one_that_copies():
    rings = []
    for reuse in (False, True):
        lanes = _lanes(partial(custom.Walk, reuse=reuse), (2, 2))
        rings.append(ring := _ring(lanes, (0, 1), 2, n_step=2))
        obs = lanes.reset()
        for action in _actions(11, (2, 2), 2):
            step = lanes.step(action)
            ring.add(obs, action, step)
            obs = step.obs
    index = np.tile(np.arange(22), (2, 1))
    copied, reused = (ring.gather(index).data for ring in rings)
    for a, b in zip(copied[:5], reused[:5], strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(np.unique(reused.next_obs.reshape(-1, 3), axis=0)) == 32  # of 44: at an end, two windows share it


def test_what_step_returned_does_not_change_and_changing_it_has_no_influence():
    lanes, other = (_lanes(partial(custom.Walk, reuse=True), (1, 2)) for _ in range(2))
    first, steps = lanes.reset(), []
    other.reset()
    for action in _actions(6, (1, 2), 2):
        steps.append((step := lanes.step(action), [x.copy() for x in step]))
        for x in (spoilt := other.step(action.copy())):
            x[...] = 1
        assert spoilt.obs is not step.obs
    assert first.tolist() == [[[0, 0, 0], [1000, 0, 0]]]
    for step, copies in steps:
        for x, y in zip(step, copies, strict=True):
            np.testing.assert_array_equal(x, y)
    action = _actions(1, (1, 2), 2)[0]
    for x, y in zip(lanes.step(action), other.step(action), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("env_dtype", [np.float16, np.float64, np.int32, bool])
def test_other_dtypes_of_numbers_become_float32(env_dtype):
    class Other(custom.Walk):
        def _report(self, *values):
            return super()._report(*values).astype(env_dtype)

    lanes = _lanes(Other)
    obs, step = lanes.reset(), lanes.step(np.zeros((1, 1, 2), np.float32))
    assert {x.dtype.name for x in (obs, step.obs, step.next_obs, step.reward)} == {"float32"}
    assert {step.terminated.dtype, step.truncated.dtype} == {np.dtype(bool)}
    assert step.next_obs[0, 0, 1] == 1


def test_images_stay_bytes():
    lanes = _lanes(custom.Bytes, (1, 2))
    assert lanes.spec.obs_dtype == "uint8"
    obs, step = lanes.reset(), lanes.step(np.zeros((1, 2, 2), np.float32))
    assert obs.dtype == step.obs.dtype == step.next_obs.dtype == np.uint8
    assert obs.shape == (1, 2, 4, 2, 3)
    assert (step.next_obs == 1).all()


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.uint16, np.int8])
def test_images_of_a_dtype_that_would_wrap_are_refused(dtype):
    with pytest.raises(EnvironmentFault, match=rf"{np.dtype(dtype)} as observation; expected .*uint8"):
        _lanes(partial(custom.Bytes, dtype)).reset()


# Seeds


class Narrow(PendulumEnv):
    """Keeps its seed as int32."""

    def reset(self, *, seed=None, options=None):
        self.kept = np.array(seed, np.int32) if seed < 2**31 else np.int32(int(seed))
        return super().reset(seed=int(self.kept))


def test_an_environment_that_keeps_its_seed_as_int32_begins_every_episode():
    seeds = training_seeds([7], 1)
    assert {seeds(0, episode) >= 2**31 for episode in range(6)} == {False, True}
    narrow, plain = (VectorEnv(lambda make=make: TimeLimit(make(), 2), (1, 1), seeds) for make in (Narrow, PendulumEnv))
    for episode in range(6):
        given = seeds(0, episode)
        expected, _ = PendulumEnv().reset(seed=given % 2**31)
        found = [each.reset(np.array([[episode]]))[0, 0] for each in (narrow, plain)]
        np.testing.assert_array_equal(found[0], expected)
        assert (found[0] == found[1]).all() == (given < 2**31)  # others are given what they always were


def test_an_episode_that_cannot_begin_is_told_with_the_seed_that_was_tried_last():
    class Refusing(custom.Walk):
        def reset(self, *, seed=None, options=None):
            raise ValueError(f"no {seed}")

    for seed, tried in ((5, 5), (2**31 + 5, 5)):
        with pytest.raises(EnvironmentFault, match=f"reset raised ValueError: no {tried} "):
            VectorEnv(Refusing, (1, 1), lambda lane, episode, seed=seed: seed).reset()


def _starts(seeds, num_envs, episodes, actions_seed=0):
    """First observations `[episodes, S, E, 3]`."""
    lanes = _lanes(partial(custom.short_pendulum, 2), (len(seeds), num_envs), training_seeds(seeds, num_envs))
    starts = [lanes.reset()]
    for t, action in enumerate(_actions(2 * episodes - 2, (len(seeds), num_envs), 1, actions_seed)):
        step = lanes.step(action)
        if t % 2:
            starts.append(step.obs)
    return np.stack(starts)


def test_an_episode_begins_alike_whatever_ran_before_and_beside_it():
    alone = _starts([7], 3, 4)
    np.testing.assert_array_equal(alone, _starts([7], 3, 4, actions_seed=5))
    among = _starts([2, 7, 9], 3, 4, actions_seed=6)
    np.testing.assert_array_equal(alone[:, 0], among[:, 1])
    np.testing.assert_array_equal(alone[:, :, :2], _starts([7], 2, 4))  # nor does the number of environments matter


def test_reset_begins_again_with_episode_0():
    lanes = _lanes(custom.Walk, (1, 2))
    first = lanes.reset()
    for action in _actions(9, (1, 2), 2):
        step = lanes.step(action)
    assert step.obs[0, :, 0].tolist() == [2, 1002]
    np.testing.assert_array_equal(lanes.reset(), first)
    for action in _actions(4, (1, 2), 2):
        step = lanes.step(action)
    assert step.truncated.all()
    assert step.obs[0, :, 0].tolist() == [1, 1001]


def test_runs_with_adjacent_seeds_share_no_first_observation():
    starts = np.concatenate([_starts([seed], 4, 3).reshape(-1, 3) for seed in range(20)])
    assert len(np.unique(starts, axis=0)) == len(starts) == 240


def test_evaluation_begins_alike_for_every_seed_and_unlike_training():
    lanes = _lanes(PendulumEnv, (3, 4), evaluation_seeds(4))
    obs = lanes.reset()
    assert (obs == obs[:1]).all()
    assert len(np.unique(obs[0], axis=0)) == 4
    train, evaluate = training_seeds(range(50), 4), evaluation_seeds(20)
    trained = {train(lane, episode) for lane in range(200) for episode in range(5)}
    assert len(trained) == 1000
    assert len(trained | {evaluate(lane, 0) for lane in range(20)}) == 1020


# Faults

WHERE = "environment 1 of seed number 0"  # lane 1 of [2, 2]

STEP_FAULTS = {
    "observation nan": "component (1,) = nan",
    "observation inf": "component (1,) = inf",
    "observation beyond float32": "component (1,) = inf",
    "reward nan": "the reward nan",
    "reward -inf": "the reward -inf",
    "reward none": "reward",
    "reward beyond float32": "reward",
    "reward of two": "reward=array([1., 1.])",
    "reward complex": "reward=1j",
    "reward text": "reward='1.5'",
    "shape longer": "shape (4,)",
    "shape with batch": "shape (1, 3)",
    "shape of one": "shape (1,)",
    "shape scalar": "shape ()",
    "dtype object": "dtype object",
    "dtype text": "dtype <U",
    "dtype complex": "dtype complex128",
    "ragged list": "returned list as observation",
    "list of text": "returned list as observation",
    "mapping": "returned dict of obs shape (3,) and dtype float32 as observation",
    "none": "returned NoneType as observation",
    "reward empty": "reward=array([], dtype=float64)",
    "terminated int": "terminated=2",
    "terminated text": "terminated='yes'",
    "truncated none": "truncated=None",
    "terminated array": "terminated=array([ True, False])",
    "four values": "raised ValueError",
    "raises": "raised RuntimeError: the arm came off",
}
OBSERVATION_FAULTS = [k for k in STEP_FAULTS if k.split()[0] not in ("reward", "terminated", "truncated", "four")]


@pytest.mark.parametrize("fault", STEP_FAULTS)
def test_a_faulty_step_is_reported_and_nothing_of_it_is_returned(fault):
    lanes = _lanes(partial(custom.Faulty, fault, lane=1, step=2, episode=1), (2, 2))
    obs, steps = lanes.reset(), []
    ring = _ring(lanes, (0, 1), 2)
    actions = _actions(7, (2, 2), 2)
    for action in actions[:6]:  # episode 0 has 4 steps
        steps.append(lanes.step(action))
        ring.add(obs, action, steps[-1])
        obs = steps[-1].obs
    with pytest.raises(EnvironmentFault) as error:
        lanes.step(actions[6])
    message = str(error.value)
    assert STEP_FAULTS[fault] in message
    for part in (WHERE, "episode 1 with seed 1001"):
        assert part in message
    assert re.search(r"\bstep 2\b", message), message
    if not fault.startswith(("shape", "dtype", "list", "ragged", "mapping", "none")):  # these name what came instead
        assert str(actions[6, 0, 1].tolist()) in message
    data = ring.gather(np.tile(np.arange(12), (2, 1))).data
    assert all(np.isfinite(x).all() for x in data[:5])
    np.testing.assert_array_equal(obs[..., 1], 2)  # what was returned before is as it was


@pytest.mark.parametrize("fault", OBSERVATION_FAULTS)
@pytest.mark.parametrize("episode", [0, 1])
def test_a_faulty_reset_is_reported(fault, episode):
    lanes = _lanes(partial(custom.Faulty, fault, lane=1, step=-1, episode=episode), (2, 2))
    with pytest.raises(EnvironmentFault) as error:  # noqa: PT012 - which call fails depends on the episode
        lanes.reset()
        assert episode == 1
        for action in _actions(4, (2, 2), 2):
            assert not lanes.step(action).truncated.any()
    assert f"episode {episode} with seed {1000 + episode}" in str(error.value)
    assert WHERE in str(error.value)


@pytest.mark.parametrize("lane", range(6))
def test_a_fault_names_environment_and_seed_of_its_lane(lane):
    lanes = _lanes(partial(custom.Faulty, "observation nan", lane=lane, step=0), (2, 3))
    lanes.reset()
    with pytest.raises(EnvironmentFault, match=f"environment {lane % 3} of seed number {lane // 3} .*component"):
        lanes.step(np.zeros((2, 3, 2), np.float32))


# Lanes that do not take part


def test_lanes_that_are_not_active_are_left_alone():
    lanes, alone = (_lanes(custom.Walk, (2, 2)) for _ in range(2))
    lanes.reset(), alone.reset()
    active = np.array([[True, False], [False, True]])
    actions = _actions(7, (2, 2), 2)
    before = lanes.step(actions[0])
    reference = alone.step(actions[0])
    for action in actions[1:]:
        step, reference = lanes.step(action, active), alone.step(action)
        for x, y, z in zip(step, reference, before, strict=True):
            np.testing.assert_array_equal(x[active], y[active])
            if x.ndim > 2:
                np.testing.assert_array_equal(x[~active], z[~active])
        assert not np.any([x[~active] for x in step[2:]])
    assert reference.obs[active][:, 0].tolist() == [1, 3001]  # an end lay between
    resumed = lanes.step(actions[0])
    assert resumed.next_obs[..., 1].tolist() == [[4, 2], [2, 4]]


def test_a_lane_that_ended_and_rests_reports_no_second_end():
    lanes = _lanes(partial(custom.Walk, end=1), (1, 2))
    lanes.reset()
    action = np.zeros((1, 2, 2), np.float32)
    assert lanes.step(action).truncated.all()
    step = lanes.step(action, np.array([[False, True]]))
    assert step.truncated.tolist() == [[False, True]]
    assert step.reward.tolist() == [[0, 1]]
    assert step.obs[0, :, 0].tolist() == [1, 1002]


def test_close_closes_every_environment():
    closed = []

    class Closing(custom.Walk):
        def close(self):
            closed.append(self)

    lanes = _lanes(Closing, (2, 2))
    lanes.close()
    assert len(set(map(id, closed))) == 4


def test_one_that_cannot_be_closed_is_warned_of_and_the_others_are_closed(caplog):
    closed = []

    class Stuck(custom.Walk):
        def close(self):
            closed.append(self)
            raise OSError("the port is busy")

    _lanes(Stuck, (1, 3)).close()
    assert len(set(map(id, closed))) == 3
    assert caplog.text.count("an environment could not be closed: OSError: the port is busy") == 3


@pytest.mark.parametrize("high", [[2.0, 1.0], [1.0]], ids=["other bounds", "other size"])
def test_environments_that_differ_are_refused_and_closed(high):
    bounds, closed = iter([[1.0, 1.0]] * 3 + [high]), []

    class Random(custom.Walk):
        def __init__(self):
            super().__init__()
            upper = np.array(next(bounds), np.float32)
            self.action_space = Box(-np.ones_like(upper), upper)

        def close(self):
            closed.append(self)

    with pytest.raises(EnvironmentFault, match=r"(?s)environments 0 and 3, .*differ.*\n  action_high: .* -> ") as error:
        _lanes(Random, (2, 2))
    assert str(tuple(high)) in str(error.value)
    assert len(closed) == 4


@pytest.mark.parametrize(("asked", "made", "begun", "taken"), [(3, 3, 0, 0), (6, 4, 2, 0), (11, 4, 4, 3)])
def test_a_stop_is_heard_before_each_environment(asked, made, begun, taken):
    calls, happened = iter(range(1, 100)), {"made": 0, "begun": 0, "taken": 0}

    class Counted(custom.Walk):
        def __init__(self):
            super().__init__()
            happened["made"] += 1

        def reset(self, **arguments):
            happened["begun"] += 1
            return super().reset(**arguments)

        def step(self, action):
            happened["taken"] += 1
            return super().step(action)

    def run():
        lanes = VectorEnv(Counted, (2, 2), custom.lane_seed, stop=lambda: next(calls) > asked)
        lanes.reset()
        lanes.step(np.zeros((2, 2, 2), np.float32))

    with pytest.raises(Interrupted, match="interrupted while environments were"):
        run()
    assert happened == {"made": made, "begun": begun, "taken": taken}


def test_environments_that_cannot_be_trained_are_refused_when_made():
    with pytest.raises(EnvironmentFault, match="Discrete"):
        _lanes(partial(custom.Refused, "discrete action"))


def test_every_lane_has_an_environment_of_its_own():
    made = []

    def make() -> gymnasium.Env:
        made.append(custom.Walk())
        return made[-1]

    _lanes(make, (2, 3)).reset()
    assert [env.number for env in made] == [0, 1000, 2000, 3000, 4000, 5000]


# Taken up again.


def test_an_episode_of_any_number_can_be_begun_in_any_lanes():
    lanes, (episode, active) = _lanes(custom.Walk, (2, 2)), np.array([[[3, 0], [7, 1]], [[1, 0], [0, 1]]])
    lanes.reset()
    lanes.step(_actions(1, (2, 2), 2)[0])
    obs = lanes.reset(episode, active > 0)
    assert obs[..., 0].tolist() == [[3, 1000], [2000, 3001]]  # seed of the episode
    assert obs[..., 1].tolist() == [[0, 1], [1, 0]]  # steps taken
    assert lanes.reset(episode)[..., 0].tolist() == [[3, 1000], [2007, 3001]]


@pytest.mark.slow
def test_no_number_that_is_not_finite_enters_the_replay_wherever_it_comes_from():
    """100 random places: lane, episode, step and kind."""
    chance, kinds = np.random.default_rng(5), ("observation nan", "observation inf", "reward nan", "reward -inf")
    reports = []
    for _ in range(100):
        lane, step, episode = (int(chance.integers(n)) for n in (4, 4, 3))
        kind = kinds[chance.integers(len(kinds))]
        lanes = _lanes(partial(custom.Faulty, kind, lane=lane, step=step, episode=episode), (2, 2))
        ring, obs, added = _ring(lanes, (0, 1), 2), lanes.reset(), 0
        try:
            for action in _actions(20, (2, 2), 2):
                result = lanes.step(action)
                ring.add(obs, action, result)
                obs, added = result.obs, added + 1
        except EnvironmentFault as error:
            reports.append(f"environment {lane % 2} of seed number {lane // 2}" in str(error))
        assert added == 4 * episode + step
        first, stop = ring.row_range
        assert stop - first == added
        assert not added or all(
            np.isfinite(x).all() for x in ring.gather(np.tile(np.arange(2 * added), (2, 1))).data[:5]
        )
    assert reports == [True] * 100
