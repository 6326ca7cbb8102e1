"""The program of one seed against a plain Python loop, many lanes against one, and what is done when."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy import stats
from tiny_device import (
    CAPACITY,
    SEEDS,
    TOTAL,
    WARMUP,
    Built,
    Ended,
    assert_close,
    build,
    device_config,
    four,
    four_ended,
    host,
    lane_of,
    run,
    stored,
)
from tiny_run import EPISODE, assert_bit_equal

from ddpg_jax.agents.algorithms import make_agent
from ddpg_jax.config.schema import Config
from ddpg_jax.envs.device.pendulum import pendulum
from ddpg_jax.errors import ConfigError
from ddpg_jax.replay.device import ring as replays
from ddpg_jax.replay.factory import make_replay
from ddpg_jax.replay.host.ring import Ring
from ddpg_jax.rng import evaluation_keys, run_keys, stream_key
from ddpg_jax.training.device.loop import device_loop
from ddpg_jax.training.device.program import program
from ddpg_jax.training.report import DIAGNOSTICS, METRICS
from ddpg_jax.training.schedule import calls_per_iteration, updates_per_call
from ddpg_jax.types import DeviceEnv, Transition

# --- The whole, rebuilt.


def by_hand(config: Config, env: DeviceEnv, key: Any, iterations: int) -> tuple[Any, ...]:
    """The loop of one seed in Python, with the ring of the host, and every random number from its stream and step."""
    num_envs, algorithm = config.env.num_envs, config.algorithm
    agent = make_agent(config, env.spec)
    act, update, step = jax.jit(agent.act), jax.jit(agent.update), jax.jit(jax.vmap(env.step))
    observe, reset = jax.jit(agent.observe), jax.jit(agent.reset)
    ring = Ring(
        env.spec, [0], num_envs=num_envs, capacity=CAPACITY, n_step=algorithm.n_step, gamma=algorithm.gamma
    )  # fmt: skip
    env_state, obs = jax.jit(jax.vmap(env.reset))(jax.random.split(stream_key(key, "reset"), num_envs))
    state, act_state, first = jax.jit(agent.init)(key), agent.init_act(num_envs), np.ones(num_envs, bool)
    replay, position = make_replay(config, env.spec), replays.start()
    store, (add, write_back) = replay.init(), map(jax.jit, (replay.add, replay.write_back))
    sample = jax.jit(replay.sample, static_argnums=(4, 5))
    due, sums, finished = 0.0, np.zeros(len(METRICS)), []
    running = np.zeros(num_envs)
    for i in range(iterations):
        keys, env_keys = (jax.random.split(stream_key(key, name, i), num_envs) for name in ("explore", "environment"))
        if algorithm.reset_every and int(state.step) and i * num_envs % algorithm.reset_every == 0:
            state = reset(state, key)
        state = observe(state, obs)
        if i * num_envs < algorithm.warmup_steps:
            action = jnp.stack([jax.random.uniform(k, (env.spec.action_size,), minval=-1, maxval=1) for k in keys])
        else:
            action, act_state = act(state, act_state, obs, first, keys)
        env_state, report = step(env_state, action, env_keys)
        ring.add(*host(jax.tree.map(lambda x: x[None], (obs, action, report))))
        store = add(store, position, obs, action, report)
        position = replays.advance(position, replays.ring_steps(CAPACITY, num_envs))
        obs, first = report.obs, report.terminated | report.truncated
        running += np.asarray(report.reward)
        finished += running[np.asarray(first)].tolist()
        running[np.asarray(first)] = 0
        if i * num_envs >= algorithm.learning_starts:
            due += algorithm.updates_per_step * num_envs / algorithm.updates_per_call
        while due >= 1:
            shape = algorithm.updates_per_call, algorithm.batch_size
            draw = stream_key(key, "replay", state.step)
            if config.replay.kind == "uniform":  # the ring of the host stands for that of the device
                index = jax.random.randint(draw, shape, 0, len(ring))
                batch = jax.tree.map(lambda x: jnp.asarray(x[0]), ring.gather(np.asarray(index)[None]))
            else:
                batch = sample(store, position, draw, state.step, *shape)
            state, metrics, td_error = update(state, batch, key)
            store = write_back(store, batch.index, td_error)
            sums += [np.asarray(metrics[name]).sum() for name in METRICS]
            due -= 1
    return state, act_state, env_state, obs, first, running, ring, sums, finished, store


STATEFUL = {"normalize_observations": True, "normalization": "batch", "reset_every": 40}


@pytest.mark.parametrize(
    ("settings", "exploration", "replay"),
    [
        ({}, {"kind": "ou", "sigma": 0.5, "theta": 0.01}, "uniform"),
        pytest.param({}, {"kind": "ou", "sigma": 0.5, "theta": 0.01}, "prioritized", marks=pytest.mark.slow),
        pytest.param(STATEFUL, {"kind": "ou", "sigma": 0.5, "theta": 0.01}, "uniform", marks=pytest.mark.slow),
        pytest.param(
            {"normalization": "layer"},
            {"kind": "parameter", "adapt_every": 3, "epsilon": 0.2},
            "uniform",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["plain", "prioritized", "stateful", "perturbed"],
)
def test_the_program_equals_a_plain_python_loop(settings, exploration, replay):
    """Warm-up, learning before its end, batches left over for the next iteration, n steps, ends, noise that begins
    anew with them, and a ring that goes round; then with moments, and networks that begin anew at two iterations.
    """
    config = device_config(
        seeds=[4],
        env={"num_envs": 2, "max_episode_steps": 4},
        algorithm={
            "warmup_steps": 24,
            "learning_starts": 8,
            "updates_per_step": 1.5,
            "updates_per_call": 2,
            "n_step": 2,
            **settings,
        },
        exploration=exploration,
        replay={"kind": replay},
    )
    built = build(config, devices=jax.devices()[:1])
    assert len(built.compiled.counts(0, 1)) == 3
    ended = run(built, 60)
    state, act_state, env_state, obs, first, running, ring, sums, finished, store = by_hand(
        config, built.env, run_keys([4])[0], 60
    )
    lane, (totals,) = lane_of(ended.lane, 0), ended.totals
    assert int(state.step) == totals.updates[0] == 3 * 56  # 56 iterations of three calls for two
    # Biases before a batch normalisation have no gradient but rounding, which Adam makes steps of.
    tolerance = 1e-3 if "batch" in settings.values() else 1e-5
    assert_close(lane.learner, state, tolerance)
    assert_close((lane.act_state, lane.env_state, lane.obs), (act_state, env_state, obs), tolerance)
    np.testing.assert_array_equal(lane.first, first)
    np.testing.assert_allclose(lane.episode_return, running, rtol=tolerance)
    assert (lane.episode_length == 60 % 4).all()
    assert_close(lane_of(stored(built, ended), 0)[:2], ring_rows(ring)[:2], tolerance)
    assert_close(lane.store, store, 10 * tolerance)
    assert built.compiled.lane_bytes["replay"] == sum(leaf.nbytes for leaf in jax.tree.leaves(store))

    np.testing.assert_allclose(totals.metrics[0], sums, rtol=10 * tolerance, atol=tolerance)
    diagnosed = dict(zip(DIAGNOSTICS, totals.diagnostics[0], strict=True))
    vector, target = (ravel_pytree(tree.critic)[0] for tree in (state.params, state.target_params))
    distance = jnp.linalg.norm(vector - target) / jnp.linalg.norm(vector)
    np.testing.assert_allclose(diagnosed["target_distance"], distance, rtol=1e-3)
    assert 0 <= diagnosed["actor_dead"] < 1
    assert np.isfinite(totals.max_q[0])
    assert totals.episodes[0] == len(finished) == 30
    assert totals.episode_length[0] == 4 * 30
    np.testing.assert_allclose(totals.episode_return[0], sum(finished), rtol=tolerance)
    assert totals.faults[0] == 0


def ring_rows(ring: Ring) -> Transition:
    return jax.tree.map(lambda x: x[0], ring.gather(np.arange(len(ring))[None]).data)


def test_an_evaluation_equals_a_plain_python_loop():
    """In a pendulum whose rewards have noise, so that every key counts."""
    good, learner, config = pendulum(EPISODE), four_ended().lane.learner, four().config

    def step(state: Any, action: Any, key: Any) -> Any:
        noise = jax.random.normal(jax.random.fold_in(jax.random.clone(key), 1))
        state, report = good.step(state, action, key)
        return state, report._replace(reward=report.reward + noise)

    env = good._replace(step=step)
    evaluation = host(jax.jit(jax.vmap(program(config, env).evaluate))(learner, {}))
    assert evaluation.returns.shape == evaluation.lengths.shape == (len(SEEDS), 3)
    assert (evaluation.lengths == EPISODE).all()
    policy, step = jax.jit(make_agent(config, env.spec).policy), jax.jit(step)
    for i in range(len(SEEDS)):
        for j, (reset_key, step_key) in enumerate(zip(*evaluation_keys(3), strict=True)):
            env_state, obs = env.reset(reset_key)
            total = 0.0
            for t in range(EPISODE):
                action = policy(lane_of(learner, i), obs)
                env_state, report = step(env_state, action, jax.random.fold_in(step_key, t))
                obs, total = report.obs, total + float(report.reward)
            np.testing.assert_allclose(evaluation.returns[i, j], total, rtol=1e-4)


# --- Lanes.


@cache
def alone() -> Built:
    """One seed; its key is an argument."""
    return build(device_config(seeds=[4]), devices=jax.devices()[:1])


def test_every_lane_is_that_seed_alone():
    ended = four_ended()
    assert (ended.lane.learner.step == 200).all()
    for i, seed in enumerate(SEEDS):
        single = run(alone(), TOTAL, keys=run_keys([seed]))
        assert_close(lane_of(ended.lane, i), lane_of(single.lane, 0), 1e-4)
        assert_close(lane_of(ended.totals[0], i), lane_of(single.totals[0], 0), 1e-3)


def test_seeds_differ_from_the_first_parameter_on():
    built = four()
    learner = host(built.compiled.init(built.compiled.shard(built.keys), {})).learner
    assert learner.step.tolist() == [0] * 4
    assert_bit_equal(learner.params, learner.target_params)
    for leaf in jax.tree.leaves((learner.params.actor, learner.params.critic)):
        flat = leaf.reshape(4, -1)
        assert all((flat[i] != flat[j]).all() for i in range(4) for j in range(i))
    stores = four_ended().lane.store.columns
    assert all((stores[i][..., 0] != stores[j][..., 0]).mean() > 0.9 for i in range(4) for j in range(i))


def test_equal_seeds_are_equal_and_runs_repeat_bit_by_bit():
    ended = run(four(), TOTAL, keys=run_keys([3, 3, 8, 3]))
    for other in (1, 3):
        assert_bit_equal(lane_of(ended.lane, 0), lane_of(ended.lane, other))
    assert_bit_equal(run(four(), TOTAL), four_ended())


def test_how_the_run_is_cut_into_chunks_changes_no_bit():
    whole = four_ended()
    one_by_one = run(four(), *range(1, TOTAL + 1))
    unevenly = run(four(), 7, 20, 21, 81, TOTAL)
    for other in (one_by_one, unevenly):
        assert_bit_equal((other.lane, other.clock), (whole.lane, whole.clock))
        sums = jax.tree.map(lambda *x: np.sum(x, 0), *other.totals)
        apart = {"max_q": 0, "diagnostics": 0}
        assert_close(sums._replace(**apart), whole.totals[0]._replace(**apart), 1e-4)
        assert_bit_equal(other.totals[-1].diagnostics, whole.totals[0].diagnostics)
        np.testing.assert_array_equal(np.max([t.max_q for t in other.totals], 0), whole.totals[0].max_q)
    assert whole.clock.iteration == TOTAL
    assert (whole.clock.position.head, whole.clock.position.length) == (TOTAL % CAPACITY, CAPACITY)


def test_the_counts_of_a_chunk_are_its_iterations_by_segment():
    config = device_config(env={"num_envs": 3}, algorithm={"warmup_steps": 20, "learning_starts": 40})
    counts = program(config, pendulum()).counts
    for begin in range(0, 30):
        for end in range(begin, 30):
            found = [sum(a <= i < b for i in range(begin, end)) for a, b in ((0, 7), (7, 14), (14, 99))]
            np.testing.assert_array_equal(counts(begin, end), np.array(found, np.int32), strict=True)


def test_a_ring_that_cannot_be_indexed_is_refused():
    for capacity in (2**31, 2**40):
        with pytest.raises(ConfigError, match=rf"replay\.capacity={capacity}: .*214748364[67]"):
            program(device_config(replay={"capacity": capacity}), pendulum())


@pytest.mark.parametrize("num_envs", [2, 65536])
def test_a_ring_that_cannot_be_indexed_once_rounded_up_is_refused(num_envs):
    with pytest.raises(ConfigError, match=r"replay\.capacity="):
        program(device_config(env={"num_envs": num_envs}, replay={"capacity": 2**31 - 1}), pendulum())


# --- What is traced, and when.


def test_the_environment_is_traced_once_for_each_loop_that_steps_it():
    """Warm-up, learning and evaluation; however many chunks there are."""
    built = four()
    assert built.traces == {"reset": 2, "step": 3}
    config = built.config.model_copy(update={"logging": built.config.logging.model_copy(update={"every": 1})})
    assert len(list(device_loop(config, built.compiled, built.keys, {}))) == TOTAL
    built.compiled.evaluate(built.compiled.shard(four_ended().lane.learner), {})
    assert built.traces == {"reset": 2, "step": 3}


# --- The schedule.


def test_the_warm_up_acts_uniformly_and_learns_nothing():
    built = four()
    compiled = built.compiled
    lane = compiled.init(compiled.shard(built.keys), {})
    before = host(lane.learner)
    lane, clock, totals = compiled.advance(
        lane, compiled.clock(), compiled.totals(), np.array([CAPACITY, 0], np.int32), built.keys, {}
    )
    assert (totals.updates == 0).all()
    assert_bit_equal(lane.learner, before)
    action = stored(built, Ended(host(lane), host(clock), [])).action[..., 0]
    assert action.shape == (4, CAPACITY)
    assert np.abs(action).max() <= 1
    assert stats.kstest(action.ravel(), "uniform", (-1, 2)).pvalue > 1e-3
    assert min(stats.kstest(row, "uniform", (-1, 2)).pvalue for row in action) > 1e-4
    correlations = np.corrcoef([*action, *np.roll(action, 1, 1)])
    assert np.abs(correlations[np.triu_indices(8, 1)]).max() < 0.35


def test_the_policy_acts_from_the_end_of_the_warm_up_on():
    """Up to its noise, with parameters that learned one update at most."""
    built = four()
    ended = run(built, WARMUP + 1)
    data = stored(built, ended)
    policy = make_agent(built.config, built.env.spec).policy
    fresh = host(built.compiled.init(built.compiled.shard(built.keys), {})).learner
    greedy = np.asarray(jax.vmap(jax.vmap(policy, (None, 0)))(fresh, data.obs))[..., 0]
    gap = np.abs(data.action[..., 0] - greedy)
    assert gap[:, WARMUP:].max() < 4 * built.config.exploration.sigma
    assert gap[:, :WARMUP].mean() > 0.3
    assert ended.totals[0].updates.tolist() == [1] * 4


@pytest.mark.usefixtures("learning_nothing")
@pytest.mark.parametrize(
    ("ratio", "num_envs", "per_call"),
    [(0.5, 1, None), (1, 1, None), (1, 3, None), (3, 1, None), (0.5, 3, None), (3, 3, 4)],
)
def test_the_number_of_updates_is_the_configured_ratio(ratio, num_envs, per_call):
    """And an episode of the evaluation ends where it ends, not at the limit."""
    config = device_config(
        seeds=[1, 2],
        total_steps=120,
        env={"id": "jax:probe-delayed", "num_envs": num_envs},
        algorithm={"updates_per_step": ratio, "updates_per_call": per_call},
        logging={"every": 7},
    )
    built = build(config, devices=jax.devices()[:1])
    whole, made = updates_per_call(config), 0
    for chunk in device_loop(config, built.compiled, built.keys, {}):
        learned = max(0, chunk.step // num_envs - -(-WARMUP // num_envs))
        expected = int(learned * calls_per_iteration(config)) * whole
        assert chunk.updates == expected
        assert chunk.learner.step.tolist() == [expected] * 2  # made, not only counted
        assert chunk.totals.updates.tolist() == [expected - made] * 2
        made = expected
    assert abs(made - (120 - WARMUP) * ratio) <= whole + num_envs * ratio
    evaluation = host(built.compiled.evaluate(chunk.learner, {}))
    np.testing.assert_array_equal(evaluation.returns, np.ones((2, 3)))
    np.testing.assert_array_equal(evaluation.lengths, np.full((2, 3), 2))


def test_counters_may_run_over():
    """The iteration is a uint32, the number of updates an int32; the ring goes on where it was."""
    built, before = four(), run(four(), 120)
    compiled = built.compiled
    far = before.lane.learner._replace(step=np.full(4, 2**31 - 3, np.int32))
    clock = before.clock._replace(iteration=np.uint32(2**32 - 3))
    lane = compiled.shard(before.lane._replace(learner=far))
    clock = jax.tree.map(lambda x, like: jax.device_put(x, like.sharding), clock, compiled.clock())
    lane, clock, totals = compiled.advance(lane, clock, compiled.totals(), np.array([0, 6], np.int32), built.keys, {})
    assert (clock.iteration, clock.iteration.dtype) == (3, jnp.uint32)
    assert (int(clock.position.head), int(clock.position.length)) == (26, CAPACITY)
    assert lane.learner.step.tolist() == [-(2**31) + 3] * 4
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((lane, totals)))
    assert totals.updates.tolist() == [6] * 4
    data = stored(built, Ended(host(lane), host(clock), []))
    assert_bit_equal(jax.tree.map(lambda x: x[:, :-6], data), jax.tree.map(lambda x: x[:, 6:], stored(built, before)))
    np.testing.assert_allclose(data.obs[:, -6:], np.concatenate([before.lane.obs[:, :], data.next_obs[:, -6:-1]], 1))
    noise = np.diff(data.action[:, -6:, 0], axis=1)
    assert (np.abs(noise) > 1e-3).mean() > 0.9  # drawn anew each time
