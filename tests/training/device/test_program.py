"""The device loop: one seed's program against a plain Python loop, many lanes against one, and what it costs.

What is proved here does not depend on how well the compiler optimises, so it compiles without its slow passes.
"""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy import stats
from tiny_run import EPISODE, tiny_config

from ddpg_jax.agents.algorithms import make_agent
from ddpg_jax.config.load import merge
from ddpg_jax.config.schema import Config, hyper_paths
from ddpg_jax.envs.device.pendulum import pendulum
from ddpg_jax.envs.factory import device_env
from ddpg_jax.errors import ConfigError, EnvironmentFault, NotFiniteError
from ddpg_jax.replay.device import ring as replays
from ddpg_jax.replay.factory import make_replay
from ddpg_jax.replay.host.ring import Ring
from ddpg_jax.rng import evaluation_keys, run_keys, stream_key
from ddpg_jax.training.device import compile as compiled_module
from ddpg_jax.training.device import program as program_module
from ddpg_jax.training.device.compile import Compiled, compile_program, lane_mesh, largest_fit, memory_bytes, padded
from ddpg_jax.training.device.loop import device_loop, reports
from ddpg_jax.training.device.make_train import make_train
from ddpg_jax.training.device.program import program
from ddpg_jax.training.factory import start
from ddpg_jax.training.report import DIAGNOSTICS, METRICS
from ddpg_jax.training.schedule import calls_per_iteration, is_due, updates_per_call
from ddpg_jax.types import Batch, DeviceEnv, Transition
from ddpg_jax.xla.memory import human_bytes

OPTIONS = compiled_module.compiler_options
SEEDS = (4, 9, 2, 7)
WARMUP, CAPACITY, TOTAL = 20, 100, 220
"""The ring goes round twice, and 200 updates are made."""

OF_PLAIN_LAYERS = 0 if jax.__version_info__ < (0, 11) else 1e-4
COLLECTIVES = r"all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"


@pytest.fixture(scope="module", autouse=True)
def quick_compiler() -> Iterator[None]:
    jax.config.update("jax_disable_most_optimizations", True)
    with mock.patch.object(compiled_module, "compiler_options", return_value=None):  # which would ask for more
        yield
    jax.config.update("jax_disable_most_optimizations", False)


@contextmanager
def fully_compiled() -> Iterator[None]:
    jax.config.update("jax_disable_most_optimizations", False)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture
def two_devices() -> list[Any]:
    if len(jax.devices()) < 2:
        pytest.skip("needs two devices")
    return jax.devices()[:2]


class Built(NamedTuple):
    """A compiled program and what it was made of."""

    config: Config
    env: DeviceEnv
    compiled: Compiled
    keys: Any
    hyper: dict[str, Any]
    traces: Counter[str]


class Ended(NamedTuple):
    """Where some iterations led: NumPy arrays, and the sums over each chunk."""

    lane: Any
    clock: Any
    totals: list[Any]


def device_config(**changes: Any) -> Config:
    base = {
        "seeds": SEEDS,
        "total_steps": TOTAL,
        "env": {"id": "jax:pendulum"},
        "algorithm": {"warmup_steps": WARMUP},
        "replay": {"capacity": CAPACITY},
        "evaluation": {"every": 110},
        "logging": {"every": 60},
    }
    return tiny_config(**merge(base, changes))


def build(
    config: Config, env: DeviceEnv | None = None, devices: Any = None, hyper: Any = None, keys: Any = None
) -> Built:
    """Compiles; the environment counts how often it is traced."""
    made = env or device_env(config)
    traces: Counter[str] = Counter()

    def counted(name: str) -> Any:
        def fn(*args: Any) -> Any:
            traces[name] += 1
            return getattr(made, name)(*args)

        return fn

    watched = made._replace(reset=counted("reset"), step=counted("step"))
    keys = run_keys(config.seed_list) if keys is None else keys
    mesh = lane_mesh(len(keys), config.data_parallel, devices)
    return Built(config, made, compile_program(config, watched, keys, hyper or {}, mesh), keys, hyper or {}, traces)


@cache
def four() -> Built:
    """Four seeds, on two devices if there are."""
    return build(device_config())


@cache
def four_on_one() -> Built:
    return build(device_config(), devices=jax.devices()[:1])


@cache
def alone() -> Built:
    """One seed; its key is an argument."""
    return build(device_config(seeds=[4]), devices=jax.devices()[:1])


def host(tree: Any) -> Any:
    return jax.tree.map(np.array, tree)


def run(built: Built, *stops: int, keys: Any = None, lane: Any = None, clock: Any = None) -> Ended:
    """Iterations up to each of the stops, in chunks, from the beginning unless a state is given."""
    compiled = built.compiled
    keys, hyper = compiled.shard((built.keys if keys is None else keys, built.hyper))
    lane, clock = lane or compiled.init(keys, hyper), clock or compiled.clock()
    totals, begin = [], 0
    for stop in stops:
        counts = compiled.counts(begin, stop)
        lane, clock, sums = compiled.advance(lane, clock, compiled.totals(), counts, keys, hyper)
        totals.append(host(sums))
        begin = stop
    return Ended(host(lane), host(clock), totals)


@cache
def four_ended() -> Ended:
    return run(four(), TOTAL)


def lane_of(tree: Any, i: int) -> Any:
    return jax.tree.map(lambda x: x[i], tree)


def assert_bit_equal(left: Any, right: Any) -> None:
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b), strict=True)


def assert_close(left: Any, right: Any, tolerance: float) -> None:
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def stored(built: Built, ended: Ended) -> Transition:
    """All rows of the lanes' replays as they were added, one step each, oldest first; leaves `[L, N, ...]`."""
    position = ended.clock.position
    index = jnp.arange(int(position.length) * built.config.env.num_envs)
    gather = partial(replays.gather, spec=built.env.spec, n_step=1, gamma=jnp.float32(built.config.algorithm.gamma))
    rows = getattr(ended.lane.store, "rows", ended.lane.store)
    return host(jax.vmap(lambda rows: gather(rows, position, index))(rows).data)


def idle(agent: Any) -> Any:
    """An agent whose update only counts, so that a test of the schedule compiles in no time."""

    def update(state: Any, batches: Batch, run_key: Any) -> Any:
        shape = batches.weight.shape
        metrics = {name: jnp.full(shape[0], 0.0 if name == "rejected" else -2.0) for name in METRICS}
        return state._replace(step=state.step + shape[0]), metrics, jnp.zeros(shape)

    return agent._replace(update=update)


@pytest.fixture
def learning_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program_module, "make_agent", lambda config, spec: idle(make_agent(config, spec)))


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
        ({}, {"kind": "ou", "sigma": 0.5, "theta": 0.01}, "prioritized"),
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
    assert_close(lane.learner, state, 1e-5)
    assert_close((lane.act_state, lane.env_state, lane.obs), (act_state, env_state, obs), 1e-5)
    np.testing.assert_array_equal(lane.first, first)
    np.testing.assert_allclose(lane.episode_return, running, rtol=1e-5)
    assert (lane.episode_length == 60 % 4).all()
    assert_close(lane_of(stored(built, ended), 0)[:2], ring_rows(ring)[:2], 1e-5)
    assert_close(lane.store, store, 1e-4)
    assert built.compiled.lane_bytes["replay"] == sum(leaf.nbytes for leaf in jax.tree.leaves(store))

    np.testing.assert_allclose(totals.metrics[0], sums, rtol=1e-4, atol=1e-5)
    diagnosed = dict(zip(DIAGNOSTICS, totals.diagnostics[0], strict=True))
    vector, target = (ravel_pytree(tree.critic)[0] for tree in (state.params, state.target_params))
    distance = jnp.linalg.norm(vector - target) / jnp.linalg.norm(vector)
    np.testing.assert_allclose(diagnosed["target_distance"], distance, rtol=1e-3)
    assert 0 <= diagnosed["actor_dead"] < 1
    assert np.isfinite(totals.max_q[0])
    assert totals.episodes[0] == len(finished) == 30
    assert totals.episode_length[0] == 4 * 30
    np.testing.assert_allclose(totals.episode_return[0], sum(finished), rtol=1e-5)
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
    assert [padded(lanes, lane_mesh(lanes, devices=two_devices)) for lanes in (1, 2, 3, 4)] == [1, 2, 4, 4]
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
    ended, single = run(built, WARMUP + 50), run(alone(), WARMUP + 50)
    assert ended.lane.learner.step == 50
    assert_close(ended.lane, single.lane, 1e-4)
    assert_close(ended.totals, single.totals, 1e-3)


def test_a_batch_that_cannot_be_shared_is_refused(two_devices):
    config = device_config(seeds=[4], data_parallel=2, algorithm={"batch_size": 5})
    with pytest.raises(ConfigError, match=r"algorithm\.batch_size=5 is not a multiple of data_parallel=2"):
        build(config, devices=two_devices)


FOUR_DEVICES = """
import re, sys
sys.path[:0] = sys.argv[1:]
import conftest
import jax
import test_program as t

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


# --- As one pure function.


@cache
def trained() -> Any:
    """`make_train` of the four seeds."""
    built = four()
    return host(jax.jit(jax.vmap(make_train(built.config)))(built.keys))


def test_the_pure_function_equals_the_loop():
    built, (state, history) = four(), trained()
    assert_close(state, four_ended().lane.learner, 1e-4)
    np.testing.assert_array_equal(history.step, np.tile([110, TOTAL], (4, 1)))
    chunks, episodes, period = device_loop(built.config, built.compiled, built.keys, {}), [], 0
    for chunk in chunks:
        episodes.append(chunk.totals)
        if is_due(chunk.step, 110, 1):
            evaluation = host(built.compiled.evaluate(chunk.learner, {}))
            np.testing.assert_allclose(history.returns[:, period], evaluation.returns, rtol=1e-4)
            np.testing.assert_array_equal(history.lengths[:, period], evaluation.lengths)
            sums = jax.tree.map(lambda *x: np.sum(x, 0), *episodes)
            np.testing.assert_array_equal(history.episodes[:, period], sums.episodes)
            mean = sums.episode_return / sums.episodes
            np.testing.assert_allclose(history.episode_return[:, period], mean, rtol=1e-4)
            for k, name in enumerate(METRICS):
                mean = sums.metrics[:, k] / sums.updates
                if name == "max_q":
                    mean = np.max([t.max_q for t in episodes], 0)
                np.testing.assert_allclose(history.metrics[name][:, period], mean, rtol=1e-3, atol=1e-4)
            episodes, period = [], period + 1
    assert period == 2


def test_the_history_is_whole():
    _, history = trained()
    assert history.returns.shape == history.lengths.shape == (4, 2, 3)
    assert history.episodes.shape == history.episode_return.shape == (4, 2)
    assert history.metrics.keys() == {*METRICS, *DIAGNOSTICS}
    assert all(x.shape == (4, 2) for x in history.metrics.values())
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(history))
    np.testing.assert_array_equal(
        history.episodes, np.tile([110 // EPISODE, TOTAL // EPISODE - 110 // EPISODE], (4, 1))
    )
    assert (history.lengths == EPISODE).all()
    assert (history.returns < 0).all()


def test_what_a_period_has_none_of_is_nan(learning_nothing):
    config = device_config(
        total_steps=40,
        env={"id": "jax:probe-delayed", "num_envs": 2},
        evaluation={"every": 20},
    )
    _, history = jax.jit(make_train(config))(jax.random.key(0))
    assert history.step.tolist() == [20, 40]
    assert history.episodes.tolist() == [10, 10]
    assert np.isnan(history.metrics["critic_loss"][0])
    assert np.isnan(history.metrics["max_q"][0])
    assert history.metrics["critic_loss"][1] == history.metrics["max_q"][1] == -2


def test_more_steps_than_the_pure_function_counts_are_refused():
    with pytest.raises(ConfigError, match=rf"total_steps={2**31}: make_train counts at most {2**31 - 1}"):
        make_train(device_config(total_steps=2**31))


# --- Numbers that differ from lane to lane.


CHANGED = {
    "algorithm.actor_learning_rate": 4e-3,
    "algorithm.critic_learning_rate": 3e-3,
    "algorithm.critic_weight_decay": 0.5,
    "algorithm.actor_weight_decay": 0.5,
    "algorithm.max_grad_norm": 0.05,
    "algorithm.gamma": 0.8,
    "algorithm.tau": 0.2,
    "exploration.theta": 0.6,
    "exploration.sigma": 0.7,
    "exploration.dt": 0.3,
    "exploration.sigma_end": 0.9,
    "exploration.epsilon": 0.8,
    "replay.alpha": 0.1,
    "replay.beta": 0.9,
    "replay.beta_end": 0.0,
    "replay.epsilon": 1.0,
}
DIVERGING = len(CHANGED) + 2
"""The last lane that differs; before it the file's numbers, a lane for each that changes, and one with all changed."""


def varied_config(**changes: Any) -> Config:
    base = {
        "total_steps": 100,
        "algorithm": {
            "weight_decay": "decoupled",
            "critic_weight_decay": 0.01,
            "max_grad_norm": 20.0,
            "critic_learning_rate": 1e-2,
            "tau": 0.1,
        },
        "exploration": {"kind": "ou", "schedule": "linear", "sigma_end": 0.05, "epsilon": 0.1},
        "replay": {"kind": "prioritized", "capacity": 10_000},
    }
    return device_config(**merge(base, changes))


def value_at(config: Config, path: str) -> float:
    section, _, field = path.partition(".")
    return getattr(getattr(config, section), field)


@cache
def varied() -> Built:
    """Equal seeds with other numbers: seed number i of the list only names the lane i."""
    count = len(CHANGED) + 3
    count += count % 2  # two devices share them
    config = varied_config(seeds=list(range(100, 100 + count)))
    hyper = {path: np.full(count, value_at(config, path), np.float32) for path in CHANGED}
    for i, (path, value) in enumerate(CHANGED.items()):
        hyper[path][[1 + i, len(CHANGED) + 1]] = value
    hyper["algorithm.critic_learning_rate"][DIVERGING] = 1e30
    return build(config, hyper=hyper, keys=run_keys([4] * count))


@cache
def varied_ended() -> Ended:
    return run(varied(), 100)


def test_every_number_that_may_differ_is_tested_here():
    assert set(CHANGED) == set(hyper_paths(varied_config()))
    assert all(value_at(varied_config(), path) != value for path, value in CHANGED.items())


def test_every_number_that_differs_makes_a_difference():
    params = varied_ended().lane.learner.params
    for i, path in enumerate(CHANGED):
        for network in (params.actor, params.critic):
            assert max(np.abs(leaf[1 + i] - leaf[0]).max() for leaf in jax.tree.leaves(network)) > 1e-4, path


@pytest.mark.parametrize("lane", [0, len(CHANGED) + 1], ids=["as configured", "all changed"])
def test_numbers_of_a_lane_are_those_of_a_run_that_is_configured_so(lane):
    """To 1e-5 after 80 updates, beside a lane that is not finite."""
    changes: dict[str, Any] = {}
    for path, value in CHANGED.items():
        section, _, field = path.partition(".")
        if lane:
            changes = merge(changes, {section: {field: value}})
    config = varied_config(seeds=[4], **changes)
    assert (value_at(config, "algorithm.gamma") == 0.8) == (lane > 0)
    single = run(build(config, devices=jax.devices()[:1]), 100)
    assert single.lane.learner.step == 80
    assert_close(lane_of(varied_ended().lane.learner, lane), lane_of(single.lane.learner, 0), 1e-5)


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


# --- Rows.


def test_the_rows_of_a_report_are_the_means_of_its_chunk():
    built = four()
    chunks = device_loop(built.config, built.compiled, built.keys, {})
    found = list(
        reports(built.config, built.compiled, device_loop(built.config, built.compiled, built.keys, {}), {}, 1.5)
    )
    assert [r.step for r in found] == [60, 110, 120, 180, TOTAL]
    assert [r.updates for r in found] == [40, 90, 100, 160, 200]
    before = 0
    for report, chunk in zip(found, chunks, strict=True):
        assert report.seconds.keys() == {"compile", "device"}
        assert report.seconds["compile"] == 1.5
        json.dumps(report.rows, allow_nan=False)
        expected = []
        for i, seed in enumerate(SEEDS):
            totals = lane_of(chunk.totals, i)
            episodes = report.step // EPISODE - before // EPISODE
            assert totals.episodes == episodes
            label = {"seed": seed, "step": report.step}
            if episodes:
                mean = pytest.approx(totals.episode_return / episodes, rel=1e-6)
                lengths = {"episodes": episodes, "episode_return": mean, "episode_length": EPISODE}
                expected.append({"event": "episodes", **label, **lengths})
            means = dict(zip(METRICS, totals.metrics / (report.updates - max(0, before - WARMUP)), strict=True))
            means = {name: pytest.approx(value, rel=1e-6) for name, value in means.items()} | {"max_q": totals.max_q}
            means |= zip(DIAGNOSTICS, totals.diagnostics.tolist(), strict=True)
            expected.append({"event": "update", **label, "updates": report.updates, **means})
        assert report.rows == expected
        before = report.step
    seconds = [r.seconds["device"] for r in found]
    assert 0 < seconds[0] < seconds[1] < seconds[-1]


def test_the_returns_of_a_chunk_are_the_rewards_of_the_episodes_that_ended_in_it():
    ended = run(four(), 50, 60)
    rewards = stored(four(), ended).reward
    first, second = ended.totals
    np.testing.assert_allclose(first.episode_return, rewards[:, :45].sum(1), rtol=1e-5)
    np.testing.assert_allclose(second.episode_return, rewards[:, 45:60].sum(1), rtol=1e-5)  # begun in the chunk before
    assert (first.episodes.tolist(), second.episodes.tolist()) == ([3] * 4, [1] * 4)
    assert (first.episode_length.tolist(), second.episode_length.tolist()) == ([45] * 4, [15] * 4)


def test_a_chunk_without_updates_or_episodes_has_no_rows_of_them():
    built = four()
    config = built.config.model_copy(update={"logging": built.config.logging.model_copy(update={"every": 10})})
    first, second, third = (
        [row["event"] for row in report.rows]
        for report, _ in zip(
            reports(config, built.compiled, device_loop(config, built.compiled, built.keys, {}), {}, 0),
            range(3),
            strict=False,
        )
    )
    assert (first, second, third) == ([], ["episodes"] * 4, ["episodes", "update"] * 4)


# --- What is not finite.


def faulty(config: Config) -> DeviceEnv:
    """Pendulum with an error that is drawn for each environment: none, a reward that is NaN, an infinite angle."""
    good = pendulum(config.env.max_episode_steps)

    def reset(key: Any) -> Any:
        state, obs = good.reset(key)
        return (state, error_of(key)), obs

    def step(state: Any, action: Any, key: Any) -> Any:
        inner, error = state
        inner, report = good.step(inner, action, key)
        reward = jnp.where(error == 1, jnp.nan, report.reward)
        next_obs = jnp.where(error == 2, jnp.inf, report.next_obs)
        return (inner, error), report._replace(reward=reward, next_obs=next_obs)

    return good._replace(reset=reset, step=step)


def error_of(key: Any) -> Any:
    return jax.random.randint(jax.random.fold_in(jax.random.clone(key), 1), (), 0, 3)


@pytest.mark.usefixtures("learning_nothing")
def test_numbers_of_an_environment_that_are_not_finite_end_the_run_and_name_the_seed():
    def error(seed: int) -> int:
        return int(error_of(jax.random.split(stream_key(run_keys([seed])[0], "reset"), 1)[0]))

    fine, reward, obs = (next(s for s in range(50) if error(s) == kind) for kind in range(3))
    config = device_config(seeds=[fine, reward, obs], total_steps=12, logging={"every": 12})
    built = build(config, faulty(config), devices=jax.devices()[:1])
    loop = partial(device_loop, config, built.compiled, built.keys, {})
    assert next(loop()).totals.faults.tolist() == [0, 12, 12]
    for seeds, named in (([fine, reward, obs], reward), ([fine, fine + 100, obs], obs)):
        renamed = config.model_copy(update={"seeds": tuple(seeds)})
        chunk = next(loop())
        faults = np.where(np.arange(3) == seeds.index(named), chunk.totals.faults, 0)
        with pytest.raises(EnvironmentFault, match=rf"env\.id='jax:pendulum', seed {named}: .* not finite .* 12") as e:
            next(
                reports(
                    renamed,
                    built.compiled,
                    iter([chunk._replace(totals=chunk.totals._replace(faults=faults))]),
                    {},
                    0,
                )
            )
        assert "before step 12" in str(e.value)
    with pytest.raises(EnvironmentFault, match=f"seed {reward}:"):
        next(reports(config, built.compiled, loop(), {}, 0))


def spoiling(config: Config, leaf: str, value: float, when: int, where: int) -> DeviceEnv:
    """Pendulum that reports a number once: a component of a leaf, at a step of an environment's life, or at resets."""
    good = pendulum(config.env.max_episode_steps)

    def spoilt(x: Any, here: Any) -> Any:
        flat = jnp.atleast_1d(x)
        return jnp.where(here, flat.at[where % len(flat)].set(value), flat).reshape(jnp.shape(x))

    def reset(key: Any) -> Any:
        state, obs = good.reset(key)
        return (state, jnp.int32(0)), spoilt(obs, leaf == "first")

    def step(state: Any, action: Any, key: Any) -> Any:
        inner, age = state
        inner, report = good.step(inner, action, key)
        return (inner, age + 1), report._replace(
            **{
                name: spoilt(getattr(report, name), (leaf == name) & (age == when))
                for name in ("reward", "next_obs", "obs")
            }
        )

    return good._replace(reset=reset, step=step)


@pytest.mark.parametrize(
    ("leaf", "value", "when", "where"),
    [("reward", np.nan, 5, 0), ("next_obs", np.inf, 30, 2), ("obs", -np.inf, 17, 1), ("first", np.nan, 0, 2)],
)
@pytest.mark.usefixtures("learning_nothing")
def test_no_number_that_is_not_finite_enters_a_replay_on_device(leaf: str, value: float, when: int, where: int):
    """From a reward, a successor, the first observation of a later episode, or of the run: reported, and not kept."""
    config = device_config(seeds=[3, 4], total_steps=40, logging={"every": 40})
    built = build(config, spoiling(config, leaf, value, when, where), devices=jax.devices()[:1])
    last = next(device_loop(config, built.compiled, built.keys, {}))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(last.carry.lane.store))
    assert (last.totals.faults >= 1).all()
    with pytest.raises(EnvironmentFault, match="seed 3: an observation or a reward was not finite"):
        next(reports(config, built.compiled, iter([last]), {}, 0))


def test_a_metric_that_is_not_finite_ends_the_run_and_names_the_seed():
    built = four()
    chunk = next(device_loop(built.config, built.compiled, built.keys, {}))
    for k, name in enumerate(METRICS):
        for value in (np.nan, np.inf):
            metrics = chunk.totals.metrics.copy()
            metrics[2, k] = value
            spoilt = chunk._replace(totals=chunk.totals._replace(metrics=metrics))
            with pytest.raises(NotFiniteError, match=rf"seed {SEEDS[2]}: {name} was not finite .* number 40;"):
                next(reports(built.config, built.compiled, iter([spoilt]), {}, 0))
    assert next(reports(built.config, built.compiled, iter([chunk]), {}, 0)).step == 60


def test_a_diagnostic_that_is_not_finite_ends_the_run_and_names_the_seed():
    built = four()
    chunk = next(device_loop(built.config, built.compiled, built.keys, {}))
    found = np.array(chunk.totals.diagnostics)
    found[2, DIAGNOSTICS.index("target_distance")] = np.nan
    broken = chunk._replace(totals=chunk.totals._replace(diagnostics=found))
    with pytest.raises(NotFiniteError, match=f"seed {SEEDS[2]}: target_distance was not finite"):
        next(reports(built.config, built.compiled, iter([broken]), {}, 0))


def test_a_lane_that_diverges_does_not_disturb_the_others():
    (totals,), rejected = varied_ended().totals, varied_ended().lane.learner.rejected
    assert np.flatnonzero(totals.metrics[:, METRICS.index("rejected")]).tolist() == [DIVERGING]
    assert np.flatnonzero(rejected.max(1)).tolist() == [DIVERGING]
    assert rejected[DIVERGING].max() == varied().config.algorithm.max_rejected
    assert np.isfinite(totals.metrics).all()
    assert not totals.faults.any()  # what environments make of its actions is not their fault


def test_parameters_that_diverge_are_not_blamed_on_the_environment():
    built = varied()
    loop = device_loop(built.config, built.compiled, built.keys, built.hyper)
    *_, last = reports(built.config, built.compiled, loop, {}, 0)
    rows = [row for row in last.rows if row["event"] == "update" and row["seed"] == 100 + DIVERGING]
    assert [(row["rejected"], "critic_loss" in row) for row in rows] == [(1.0, False)]


# --- Counters that run over.


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


# --- Memory.


def allocated(built: Built) -> int:
    """Bytes that the lanes take on the first device."""
    lane = built.compiled.init(*built.compiled.shard((built.keys, built.hyper)))
    shards = [shard for leaf in jax.tree.leaves(lane) for shard in leaf.addressable_shards]
    return sum(shard.data.nbytes for shard in shards if shard.device == built.compiled.mesh.devices.flat[0])


def test_the_memory_of_a_run_is_that_of_its_lanes_and_of_what_a_program_needs_beside():
    """Which is little: the replay is written in place and never copied."""
    built = varied()
    lanes = allocated(built)
    assert lanes > len(built.keys) * 10_000 * 40 / built.compiled.mesh.shape["seed"]
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
    for pairs in (1, 3, 100):  # of lanes, one on each of two devices
        for more, fit in ((0, pairs), (-2, pairs - 1)):
            free = 2 * (memory_bytes(compiled, 4) * pairs // 2) + more
            monkeypatch.setattr(compiled_module, "available_bytes", lambda free=free: free)
            assert largest_fit(compiled, 4) == 2 * fit
    monkeypatch.setattr(compiled_module, "available_bytes", lambda: 0)
    assert largest_fit(compiled, 4) == 0


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_passes_of_the_compiler_are_left_out_on_a_cpu_only(platform):
    mesh = SimpleNamespace(devices=np.array([SimpleNamespace(platform=platform)], object))
    often, run_once = OPTIONS(mesh), OPTIONS(mesh, run_once=True)
    if platform == "gpu":
        assert often is run_once is None
    else:
        assert often == {"xla_backend_optimization_level": 1}
        older = {"xla_cpu_use_fusion_emitters": False} if jax.__version_info__ < (0, 11) else {}
        assert run_once == often | older


@pytest.mark.parametrize(
    ("seeds", "algorithm", "tolerance"),
    [
        (1, {"name": "td3"}, OF_PLAIN_LAYERS),
        pytest.param(1, {"hidden": [256, 256]}, OF_PLAIN_LAYERS, marks=pytest.mark.slow),
        pytest.param(2, {"name": "d4pg", "v_min": -9, "v_max": 0}, 1e-4, marks=pytest.mark.slow),
        pytest.param(1, {"architecture": "simba"}, 1e-4, marks=pytest.mark.slow),
    ],
)
def test_what_the_compiler_leaves_out_changes_no_bit_or_the_last_ones(seeds, algorithm, tolerance, monkeypatch):
    """Exponentials and the moments of a layer may come out otherwise, and from jax 0.11 on the rest too."""
    config, found = device_config(seeds=list(SEEDS[:seeds]), algorithm=algorithm), []
    with fully_compiled():
        for options in (OPTIONS, lambda mesh, run_once=False: {"xla_backend_optimization_level": 3}):
            monkeypatch.setattr(compiled_module, "compiler_options", options)
            built = build(config, devices=jax.devices()[:1])
            ended = run(built, 60)
            found.append((ended, host(built.compiled.evaluate(ended.lane.learner, {}))))
    assert_close(*found, tolerance)


@pytest.mark.parametrize(("seeds", "shape"), [(1, "f32[7,5]"), (2, "f32[2,7,5]")])
def test_a_seed_that_is_alone_is_compiled_without_its_axis(seeds, shape):
    config = device_config(seeds=list(SEEDS[:seeds]), algorithm={"hidden": [7, 5]})
    text = build(config, devices=jax.devices()[:1]).compiled.advance.as_text()
    loops = [line for line in text.splitlines() if " while(" in line]
    carried = {found for line in loops for found in re.findall(r"f32\[(?:\d,)?7,5\]", line)}
    assert shape in carried  # of the actor; the critics have an axis of their own


@pytest.mark.parametrize(("seeds", "num_envs", "kind"), [(1, 1, "uniform"), (2, 1, "uniform"), (1, 3, "prioritized")])
def test_no_program_holds_a_second_replay(seeds, num_envs, kind):
    replay = {"capacity": 50_000, "kind": kind}
    config = device_config(seeds=list(SEEDS[:seeds]), env={"num_envs": num_envs}, replay=replay)
    compiled = build(config).compiled
    assert compiled.lane_bytes["replay"] > 10**6
    assert compiled.program_bytes < 10**5
