"""The host loop on real environments: what is stored, how often it learns, and that nothing else decides a number."""

from collections import Counter
from fractions import Fraction

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy import stats
from tiny_run import EPISODE, assert_bit_equal, loop, read_rows, tiny_config

import ddpg_jax as dj
from ddpg_jax.agents.algorithms import make_agent
from ddpg_jax.envs.factory import make_training_envs
from ddpg_jax.envs.host.vector import training_seeds
from ddpg_jax.errors import NotFiniteError
from ddpg_jax.replay.factory import make_ring, prioritization
from ddpg_jax.replay.host.prioritized import PrioritizedRing
from ddpg_jax.rng import explore_keys, run_keys, stream_key
from ddpg_jax.training.host.compile import jit_update
from ddpg_jax.training.host.loop import host_loop
from ddpg_jax.training.host.transfer import raw_rows
from ddpg_jax.training.report import METRICS

UNIFORM_ONLY = {"warmup_steps": 10**6}
"""Nothing is learned: the whole run is warm-up."""


def idle(agent):
    """An agent whose update only counts, so that a test of the schedule compiles in no time."""

    def update(state, batches, run_key):
        shape = batches.weight.shape
        zeros = {name: jnp.zeros(shape[0]) for name in METRICS}
        return state._replace(step=state.step + shape[0]), zeros, jnp.zeros(shape)

    return agent._replace(update=update)


def stored(looped, count):
    """All rows of the replay, oldest first, leaves `[S, count, ...]`; one step each."""
    assert len(looped.ring) == count
    num_seeds = len(looped.reports[-1].state.step)
    return looped.ring.gather(np.tile(np.arange(count), (num_seeds, 1))).data


def seed_of(tree, i):
    return jax.tree.map(lambda x: x[i], tree)


# --- Determinism.


def test_equal_configurations_end_in_equal_bits(run, tmp_path):
    again = dj.train(run.config, tmp_path / "again")
    first, second = (load_file(r.directory / "checkpoints" / "final.safetensors") for r in (run, again))
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], strict=True)
    record = (run.directory / "metrics.jsonl").read_bytes()
    assert record == (again.directory / "metrics.jsonl").read_bytes()
    assert {row["event"] for row in read_rows(run.directory / "metrics.jsonl")} == {"episode", "update", "evaluation"}


def test_different_seeds_differ_from_the_first_parameter_on():
    config = tiny_config(total_steps=1, seeds=[1, 2, 2**40 + 1])
    state = loop(config, idle).reports[0].state
    assert state.step.tolist() == [0, 0, 0]
    for leaf in jax.tree.leaves((state.params.actor, state.params.critic)):
        flat = np.asarray(leaf).reshape(3, -1)
        for i, j in ((0, 1), (0, 2), (1, 2)):
            assert (flat[i] != flat[j]).all()


def test_targets_begin_as_copies():
    state = loop(tiny_config(total_steps=1), idle).reports[0].state
    assert_bit_equal(state.params, state.target_params)


def test_the_data_of_a_seed_does_not_depend_on_the_seeds_beside_it():
    runs = {
        seeds: loop(tiny_config(seeds=list(seeds), algorithm=UNIFORM_ONLY), idle) for seeds in ((3,), (7, 3), (3, 1, 8))
    }
    alone = seed_of(stored(runs[(3,)], 60), 0)
    for seeds, looped in runs.items():
        assert_bit_equal(alone, seed_of(stored(looped, 60), seeds.index(3)))
        episodes = [row["episode_return"] for row in looped.rows if row["event"] == "episode" and row["seed"] == 3]
        assert episodes == [row["episode_return"] for row in runs[(3,)].rows]
        assert len(episodes) == 60 // EPISODE
    others = stored(runs[(3, 1, 8)], 60)
    assert len(np.unique(others.obs[:, 0], axis=0)) == len(np.unique(others.action[:, 0])) == 3


# --- The schedule.


@pytest.mark.parametrize("per_call", [1, 4])
@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.parametrize("ratio", [0.25, 1, 2])
def test_the_number_of_updates_is_the_configured_ratio(ratio, num_envs, per_call):
    algorithm = {"updates_per_step": ratio, "updates_per_call": per_call}
    config = tiny_config(env={"num_envs": num_envs}, algorithm=algorithm, logging={"every": 7})
    for report in loop(config, idle).reports:
        learned = max(0, report.step - num_envs - 20)  # batches are drawn after a step and learned in the next
        owed = int(learned * Fraction(ratio))
        assert report.updates == owed - owed % per_call
        assert report.state.step.dtype == jnp.int32
    assert report.step == 60
    assert report.updates > 0
    assert report.state.step.tolist() == [report.updates] * 2  # made, not only counted


def test_updates_come_in_calls_of_those_due_after_one_step():
    shapes = []

    def noting(agent):
        agent = idle(agent)

        def update(state, batches, run_key):
            shapes.append(batches.weight.shape)
            return agent.update(state, batches, run_key)

        return agent._replace(update=update)

    for ratio, num_envs in ((0.25, 1), (1, 3), (2, 3)):
        loop(tiny_config(env={"num_envs": num_envs}, algorithm={"updates_per_step": ratio}, total_steps=1), noting)
    assert shapes == [(1, 4), (3, 4), (6, 4)]


def test_learning_may_start_before_or_after_the_warm_up():
    for starts, updates in ((5, 54), (50, 9)):
        assert loop(tiny_config(algorithm={"learning_starts": starts}), idle).reports[-1].updates == updates


def test_the_warm_up_acts_uniformly_and_learns_nothing():
    config = tiny_config(total_steps=600, env={"num_envs": 2}, algorithm={"warmup_steps": 600})
    looped = loop(config)
    report = looped.reports[-1]
    assert (report.step, report.updates) == (600, 0)
    assert not [row for row in looped.rows if row["event"] == "update"]
    action = stored(looped, 600).action[..., 0]
    for i in range(2):
        assert stats.kstest(action[i], "uniform", (-1, 2)).pvalue > 1e-3
    lanes = action.reshape(2, 300, 2)
    correlations = np.corrcoef([lanes[s, :, e] for s, e in np.ndindex(2, 2)])
    assert np.abs(correlations[np.triu_indices(4, 1)]).max() < 0.2
    fresh = jax.jit(jax.vmap(looped.agent.init))(run_keys(config.seed_list))
    assert_bit_equal(report.state, fresh)


@pytest.mark.parametrize("num_envs", [1, 2])
def test_the_policy_acts_from_the_end_of_the_warm_up_on(num_envs):
    config = tiny_config(total_steps=30, env={"num_envs": num_envs}, exploration={"kind": "none"})
    looped = loop(config, idle)  # its parameters stay as they were
    data, state = stored(looped, 30), looped.reports[-1].state
    greedy = jax.vmap(jax.vmap(looped.agent.policy, (None, 0)))(state, data.obs)
    np.testing.assert_allclose(data.action[:, 20:], greedy[:, 20:], rtol=1e-5, atol=1e-6)
    assert (np.abs(data.action[:, :20] - greedy[:, :20]) > 1e-3).all(-1).mean() > 0.9


@pytest.mark.parametrize(
    ("num_envs", "every", "steps"),
    [
        (1, (7, 10), [7, 10, 14, 20, 21, 25]),
        (3, (7, 10), [9, 12, 15, 21, 27]),  # a multiple is passed within an iteration of 3 steps
        (1, (10, 0), [10, 20, 25]),
        (4, (1000, 1000), [28]),
        (2, (1, 25), [2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26]),
    ],
)
def test_reports_come_at_the_multiples_and_at_the_end(num_envs, every, steps):
    config = tiny_config(
        total_steps=25, env={"num_envs": num_envs}, logging={"every": every[0]}, evaluation={"every": every[1]}
    )
    reports = loop(config, idle).reports
    assert [report.step for report in reports] == steps
    assert all(set(r.seconds) == {"compile", "act", "environment", "replay", "update"} for r in reports)


def test_a_run_evaluates_at_the_multiples_and_at_the_end(run):
    rows = [row for row in read_rows(run.directory / "metrics.jsonl") if row["event"] == "evaluation"]
    assert [(row["seed"], row["step"]) for row in rows] == [(4, 25), (9, 25), (4, 50), (9, 50), (4, 60), (9, 60)]


def test_nothing_is_traced_twice():
    traces = Counter()

    def counting(agent):
        def counted(name):
            def fn(*args):
                traces[name] += 1
                return getattr(agent, name)(*args)

            return fn

        return agent._replace(**{name: counted(name) for name in ("init", "act", "policy", "update")})

    looped = loop(tiny_config(env={"num_envs": 2}, exploration={"kind": "ou"}), counting)
    assert looped.reports[-1].updates > 30
    assert traces == {"init": 1, "act": 1, "update": 1}


def test_networks_begin_anew_at_the_multiples_and_not_before_they_have_learned():
    """Of an agent that only counts, at steps 32 and 48 of 60; at 16 nothing has been learned."""
    looped = loop(tiny_config(algorithm={"reset_every": 16}, logging={"every": 48}), idle)
    keys, updates = run_keys([4, 9]), looped.reports[[r.step for r in looped.reports].index(48)].updates
    renewed = jax.vmap(lambda key: looped.agent.init(stream_key(key, "reset networks", updates)))(keys)
    assert_bit_equal(looped.reports[-1].state.params, renewed.params)
    last = loop(tiny_config(algorithm={"reset_every": 60}), idle).reports[-1].state  # the end is judged before
    assert_bit_equal(last.params, jax.vmap(looped.agent.init)(keys).params)


def test_moments_are_those_of_the_observations_acted_on_by_the_seed():
    looped = loop(tiny_config(env={"num_envs": 2}, algorithm={"normalize_observations": True}))
    seen, moments = stored(looped, 60).obs.astype(np.float64), looped.reports[-1].state.stats.obs
    np.testing.assert_array_equal(moments.size, [60, 60])
    np.testing.assert_allclose(moments.mean, seen.mean(1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(moments.variance, seen.var(1), rtol=1e-4, atol=1e-5)


# --- The data.


@pytest.mark.parametrize("n_step", [1, 3])
def test_what_is_learned_from_is_what_the_environments_saw(n_step):
    """Every stored transition against gymnasium itself, driven by the stored actions, over the ends of episodes."""
    config = tiny_config(env={"num_envs": 2}, algorithm={"n_step": n_step}, exploration={"kind": "ou"})
    looped = loop(config, idle)
    steps, gamma = 30, config.algorithm.gamma
    data = jax.tree.map(lambda x: x.reshape(2, steps, 2, *x.shape[2:]), stored(looped, 60))
    for s, e in np.ndindex(2, 2):
        env = gymnasium.make("Pendulum-v1", max_episode_steps=EPISODE)
        obs, saw, rewards, ends = None, [], [], []
        for t in range(steps):
            if t % EPISODE == 0:
                obs, _ = env.reset(seed=training_seeds(config.seed_list, 2)(2 * s + e, t // EPISODE))
            next_obs, reward, terminated, truncated, _ = env.step(2.0 * data.action[s, t, e])
            assert not terminated
            saw.append((obs, next_obs))
            rewards.append(reward)
            ends.append(truncated)
            obs = next_obs
        assert sum(ends) == steps // EPISODE
        for t in range(steps):
            last = min(t + n_step, (t // EPISODE + 1) * EPISODE) - 1  # cut at the end of the episode
            folded = sum(gamma**i * r for i, r in enumerate(rewards[t : last + 1]))
            np.testing.assert_allclose(data.obs[s, t, e], saw[t][0], rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(data.next_obs[s, t, e], saw[last][1], rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(data.reward[s, t, e], folded, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(data.discount[s, t, e], gamma ** (last + 1 - t), rtol=1e-5)


# --- The whole, rebuilt.


@pytest.mark.parametrize(
    ("kind", "exploration"),
    [
        ("uniform", {"kind": "ou", "sigma": 0.5}),
        ("prioritized", {"kind": "ou", "sigma": 0.5}),
        ("uniform", {"kind": "ou", "schedule": "linear", "sigma": 0.5, "epsilon": 0.3}),
        ("uniform", {"kind": "gaussian_per_env"}),
        ("uniform", {"kind": "parameter", "adapt_every": 3}),
    ],
    ids=["uniform", "prioritized", "scheduled and mixed", "per_env", "parameter"],
)
def test_ten_iterations_equal_a_plain_python_loop(kind, exploration):
    """One seed at a time, no vmap over seeds, no packing, no donation; episodes of 4 steps end on the way.

    The errors of an update are written back in the next iteration, after its step is stored.
    """
    config = tiny_config(
        total_steps=20,
        env={"num_envs": 2, "max_episode_steps": 4},
        algorithm={"warmup_steps": 0, "learning_starts": 6},
        exploration=exploration,
        replay={"kind": kind},
        logging={"every": 20},
        evaluation={"every": 0},
    )
    looped = loop(config)

    lanes = make_training_envs(config)
    ring, agent, keys = make_ring(config, lanes.spec), make_agent(config, lanes.spec), list(run_keys(config.seed_list))
    act, update = jax.jit(agent.act), jax.jit(agent.update)
    states = [jax.jit(agent.init)(key) for key in keys]
    act_states = [agent.init_act(2), agent.init_act(2)]
    obs, first, drawn, late = lanes.reset(), np.ones((2, 2), bool), None, None
    for i in range(10):
        actions, errors = [], []
        for s in range(2):
            now = explore_keys(keys[s][None], jnp.array([i], jnp.uint32), 2)[0, 0]
            action, act_states[s] = act(states[s], act_states[s], obs[s], first[s], now)
            actions.append(np.asarray(action))
            if drawn is not None:
                batches = drawn._replace(index=())
                states[s], _, td_error = update(states[s], seed_of(batches, s), keys[s])
                errors.append(np.asarray(td_error))
        step = lanes.step(np.stack(actions))
        ring.add(obs, np.stack(actions), step)
        if late is not None:
            ring.write_back(*late)
        late = (drawn.index, np.stack(errors)) if errors else None
        obs, first = step.obs, step.terminated | step.truncated
        owed = max(0, 2 * (i + 1) - 6)
        drawn = ring.sample(2, 4, owed // 2 - 1) if owed else None
    assert int(states[0].step) == looped.reports[-1].updates == 12

    for s in range(2):
        for a, b in zip(jax.tree.leaves(states[s]), jax.tree.leaves(seed_of(looped.reports[-1].state, s)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    ours, theirs = (r.gather(np.tile(np.arange(20), (2, 1))).data for r in (looped.ring, ring))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), ours, theirs)
    if kind == "prioritized":
        rows = np.tile(np.arange(20), (2, 1))
        np.testing.assert_allclose(looped.ring.tree.get(rows), ring.tree.get(rows), rtol=1e-4)
        assert (np.unique(ring.tree.get(rows)).size) > 10


def test_the_noise_starts_anew_with_every_episode():
    """The stored actions equal those of an agent whose noise is made afresh at each episode's first step."""
    config = tiny_config(
        seeds=[2],
        total_steps=30,
        env={"max_episode_steps": 6},
        algorithm={"warmup_steps": 0, "learning_starts": 10**6},
        exploration={"kind": "ou", "theta": 0.01, "sigma": 0.1},
    )
    looped = loop(config, idle)
    data, state = seed_of(stored(looped, 30), 0), seed_of(looped.reports[-1].state, 0)
    act = jax.jit(looped.agent.act)

    def replayed(fresh):
        """Actions of a noise that is never told of an episode's beginning, made afresh where `fresh` says."""
        actions, carried = [], looped.agent.init_act(1)
        keys = explore_keys(run_keys([2]), jnp.arange(30), 1)[:, 0]
        for t in range(30):
            carried = looped.agent.init_act(1) if fresh(t) else carried
            action, carried = act(state, carried, data.obs[t][None], np.array([False]), keys[t])
            actions.append(np.asarray(action[0]))
        return np.stack(actions)

    np.testing.assert_allclose(data.action, replayed(lambda t: t % 6 == 0), atol=1e-6)
    assert np.abs(data.action - replayed(lambda t: False))[6:].max() > 0.1


# --- Priorities.


@pytest.mark.parametrize("hidden", [8, 128], ids=["narrow", "wide"])
def test_without_priorities_a_run_is_that_of_uniform_replay_bit_by_bit(hidden):
    """Whichever way the batches travel: the draws are the same numbers, and every weight is 1."""
    runs = [
        loop(tiny_config(total_steps=80, env={"num_envs": 2}, algorithm={"hidden": [hidden]}, replay=replay))
        for replay in ({}, {"kind": "prioritized", "alpha": 0.0})
    ]
    assert [type(looped.ring).__name__ for looped in runs] == ["Ring", "PrioritizedRing"]
    assert runs[0].reports[-1].updates == runs[1].reports[-1].updates == 58
    assert_bit_equal(runs[0].reports[-1].state, runs[1].reports[-1].state)
    for ours, theirs in zip(runs[0].rows, runs[1].rows, strict=True):
        assert ours.pop("event") == theirs.pop("event")
        assert ours == pytest.approx(theirs, rel=1e-6)  # a mean with weights that are known to be 1 is contracted


def test_errors_come_back_one_call_late_and_before_the_next_draw():
    """Each error is the number of its update, from 1."""
    events, config = [], tiny_config(total_steps=30, replay={"kind": "prioritized", "alpha": 1.0})

    def counting(agent):
        agent = idle(agent)

        def update(state, batches, run_key):
            state, metrics, td_error = agent.update(state, batches, run_key)
            return state, metrics, td_error + state.step.astype(jnp.float32)

        return agent._replace(update=update)

    class Watched(PrioritizedRing):
        def draw(self, updates, batch_size, call):
            index = super().draw(updates, batch_size, call)
            events.append(("draw", call + 1, index))
            return index

        def write_back(self, index, td_error):
            (number,) = np.unique(td_error)
            events.append(("write back", int(number), index))
            super().write_back(index, td_error)

        def add(self, *row):
            super().add(*row)
            events.append(("add", self._added, None))

    lanes = make_training_envs(config)
    agent, rule = counting(make_agent(config, lanes.spec)), prioritization(config)
    sizes = {"num_envs": 1, "capacity": 1000, "n_step": 1, "gamma": 0.99}
    list(host_loop(config, agent, lanes, Watched(lanes.spec, config.seed_list, **sizes, rule=rule)))
    order = [event[:2] for event in events if event[0] != "add" or event[1] > 20]
    assert order[:7] == [
        *(("add", 21), ("draw", 1), ("add", 22), ("draw", 2), ("add", 23), ("write back", 1), ("draw", 3))
    ]
    assert order[7:10] == [("add", 24), ("write back", 2), ("draw", 4)]
    indices = {kind: {n: index for what, n, index in events if what == kind} for kind in ("draw", "write back")}
    assert set(indices["write back"]) == set(range(1, 9))
    for number, index in indices["write back"].items():
        np.testing.assert_array_equal(index, indices["draw"][number])


def test_uniform_replay_asks_for_no_errors():
    config = tiny_config()
    lanes = make_training_envs(config)
    ring, agent = make_ring(config, lanes.spec), idle(make_agent(config, lanes.spec))
    obs, action = lanes.reset(), np.zeros((2, 1, 1), np.float32)
    ring.add(obs, action, lanes.step(action))
    way, keys = raw_rows(ring), run_keys(config.seed_list)
    state, packed = jax.vmap(agent.init)(keys), way.pack(ring.draw(1, 4, 0))
    assert jax.eval_shape(jit_update(agent, way.unpack), state, packed, keys)[2] == ()
    assert jax.eval_shape(jit_update(agent, way.unpack, errors=True), state, packed, keys)[2].shape == (2, 1, 4)


def test_a_prioritised_run_repeats_and_its_seeds_do_not_depend_on_each_other():
    changes = {"replay": {"kind": "prioritized", "capacity": 30}, "total_steps": 80}
    runs = [loop(tiny_config(seeds=seeds, **changes)).reports[-1].state for seeds in ([4, 9], [4, 9], [9])]
    assert_bit_equal(runs[0], runs[1])
    for a, b in zip(jax.tree.leaves(seed_of(runs[0], 1)), jax.tree.leaves(seed_of(runs[2], 0)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


# --- Ends before the end.


def test_a_loop_can_be_left_at_any_report():
    config = tiny_config(logging={"every": 10})
    lanes = make_training_envs(config)
    agent = idle(make_agent(config, lanes.spec))
    reports = host_loop(config, agent, lanes, make_ring(config, lanes.spec))
    report = next(reports)
    reports.close()
    assert report.step == 10
    assert report.state.step.tolist() == [0, 0]  # its buffers are still whole


def test_parameters_that_are_not_finite_are_not_blamed_on_the_environment():
    """The action shows it an iteration later, long before the metrics are looked at."""
    config = tiny_config(algorithm={"warmup_steps": 0, "learning_starts": 10**6})
    lanes = make_training_envs(config)
    agent = make_agent(config, lanes.spec)

    def init(key):
        return jax.tree.map(lambda x: x * jnp.nan if x.dtype == jnp.float32 else x, agent.init(key))

    broken = agent._replace(init=init)
    with pytest.raises(NotFiniteError, match="after 0 updates"):
        next(host_loop(config, broken, lanes, make_ring(config, lanes.spec)))
