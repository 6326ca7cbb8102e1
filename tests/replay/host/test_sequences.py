"""The ring of windows against a plain list of steps, and on their way to the device."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2
from step_list import CARRY, GAMMA, IMAGES, VECTORS, StepList, add_steps, experience
from tiny_run import tiny_config

from ddpg_jax.equations.priorities import Prioritization
from ddpg_jax.errors import ConfigError
from ddpg_jax.replay.device import ring as replays
from ddpg_jax.replay.factory import make_replay, make_ring
from ddpg_jax.replay.host import ring as ring_module
from ddpg_jax.replay.host.prioritized import PrioritizedRing
from ddpg_jax.replay.host.ring import Ring
from ddpg_jax.replay.host.sequences import PrioritizedSequenceRing, SequenceRing
from ddpg_jax.training.host.transfer import batch_transfer
from ddpg_jax.types import EnvSpec, Step, Window

RULE = Prioritization(alpha=1.0, beta=1.0, beta_end=1.0, epsilon=1e-12, updates=100)


def make(spec=VECTORS, seeds=(0, 1), *, num_envs=1, places=12, n_step=1, length=3, burn_in=0, **more):
    """Prioritised where a rule is given."""
    kind = PrioritizedSequenceRing if "rule" in more else SequenceRing
    sizes = {"num_envs": num_envs, "capacity": places * num_envs, "n_step": n_step, "gamma": GAMMA}
    return kind(spec, seeds, **sizes, length=length, burn_in=burn_in, **more)


class Case(NamedTuple):
    """A ring, what was added to it, and the list of it."""

    ring: Any
    listed: StepList
    num_envs: int
    every: int

    @property
    def whole(self):
        return self.ring.windows.whole

    def every_start(self):
        """`(index, time, environment)` of each window that may be drawn, by the list."""
        listed = self.listed
        first = listed.oldest if not isinstance(self.ring, PrioritizedSequenceRing) else 0
        times = [t for t in range(listed.oldest, listed.stop - self.whole + 1) if self.every == 0 or self.is_kept(t)]
        return [((t - first) * self.num_envs + e, t, e) for t in times for e in range(self.num_envs)]

    def is_kept(self, t):
        return t % self.listed.places % self.every == 0


@st.composite
def cases(draw, kinds=(VECTORS, IMAGES), seeds=2, keep=(0, 0, 2, 3)):
    """Rings that have gone round or not, with a window that may be drawn."""
    spec, num_envs, every = draw(st.sampled_from(kinds)), draw(st.integers(1, 3)), draw(st.sampled_from(keep))
    length, burn_in, n_step = draw(st.integers(1, 4)), draw(st.integers(0, 3)), draw(st.integers(1, 3))
    whole = length + burn_in
    places = whole + max(0, every - 1) + draw(st.integers(0, 5))
    stop = draw(st.integers(whole, 2 * places + 3))
    end_rate = draw(st.sampled_from([0.0, 0.2, 0.6]))
    data = experience(spec, stop, seeds, num_envs, end_rate, seed=draw(st.integers(0, 99)))
    sizes = {"places": places, "length": length, "burn_in": burn_in, "n_step": n_step, "num_envs": num_envs}
    kept = {"keep_every": every, "carry_size": CARRY if every else 0}
    ring = make(spec, range(seeds), **sizes, **kept, **({"rule": RULE} if draw(st.booleans()) else {}))
    add_steps(ring, data, 0, stop)
    return Case(ring, StepList(data, stop, places), num_envs, every)


def pick(data, *where):
    return jax.tree.map(lambda x: x[where], data)


def assert_every_window(case, data):
    """Of data `[S, starts, ...]`."""
    for s in range(2):
        for i, (_, t, e) in enumerate(case.every_start()):
            window = pick(data, s, i)
            case.listed.assert_window(window, s, e, t, case.whole, case.ring.n_step)
            if case.every:
                np.testing.assert_array_equal(window.obs.carry, case.listed.data.carry[t, s, e])
            else:
                assert window.obs.carry == ()


@settings(max_examples=100)
@given(cases())
def test_every_window_is_that_of_the_list(case):
    index = np.tile([i for i, _, _ in case.every_start()], (2, 1))
    batch = case.ring.gather(index)
    assert_every_window(case, batch.data)
    np.testing.assert_array_equal(batch.weight, np.ones(index.shape))
    np.testing.assert_array_equal(batch.index, index)
    window = batch.data.obs
    assert [x.dtype.name for x in (window.first, window.last)] == ["bool", "int32"]
    assert {x.dtype.name for x in (window.reward, *batch.data[1:4], batch.weight)} == {"float32"}


@settings(max_examples=50)
@given(cases())
def test_every_whole_window_is_drawn_and_none_other(case):
    index = case.ring.draw(2, 60 * len(case.every_start()), 0)
    for drawn in index:
        assert set(np.unique(drawn)) == {i for i, _, _ in case.every_start()}


def test_a_window_by_hand():
    """Episodes of two steps, the second cut, the first terminated; five steps, of which a ring of four holds the last.

    Windows of burn-in 1 and length 2, two rows folded at most: rewards 1, 2, 4, 8, 16 and gamma = 1/2.
    """
    spec = EnvSpec((1,), "float32", (-1.0,), (1.0,))
    ring = make(spec, (0,), places=4, n_step=2, length=2, burn_in=1)
    for t in range(5):
        obs, action = np.float32([[[10 * t]]]), np.float32([[[t / 10]]])
        ends = np.array([[t == 1]]), np.array([[t == 3]])
        ring.add(obs, action, Step(obs, obs + 5, np.float32([[2**t]]), *ends))
    data = ring.gather(np.array([[0, 1]])).data
    window: Window = data.obs
    np.testing.assert_array_equal(window.obs[0, 0, :, 0], [10, 20, 30, 40])
    np.testing.assert_array_equal(window.next_obs[0, 0, :, 0], [15, 25, 35, 45])
    np.testing.assert_array_equal(window.first[0, 0], [True, True, False, True])  # step 0 is stored no more
    np.testing.assert_array_equal(window.reward[0, 0], [2, 4, 8, 16])
    np.testing.assert_array_equal(data.reward[0, 0], [2, 4 + 8 / 2, 8])
    np.testing.assert_array_equal(data.discount[0, 0], [0, 0.25, 0.5])
    np.testing.assert_array_equal(window.last[0, 0], [0, 2, 2])
    np.testing.assert_array_equal(data.action[0, 0, :, 0], np.float32([0.1, 0.2, 0.3]))
    assert (window.action_before[0, 0, 0], window.reward_before[0, 0]) == (0, 0)
    np.testing.assert_array_equal(window.first[0, 1, :3], [True, False, True])  # step 1 is stored, and was an end
    np.testing.assert_array_equal(data.reward[0, 1], [4 + 8 / 2, 8, 16])  # nothing is stored after step 4
    np.testing.assert_array_equal(data.discount[0, 1], [0.25, 0.5, 0.5])
    np.testing.assert_array_equal(window.last[0, 1], [1, 1, 2])
    assert (window.action_before[0, 1, 0], window.reward_before[0, 1]) == (0, 0)


def test_what_came_before_a_window_is_told():
    data = experience(VECTORS, 6, 2, 2, 0.0)
    ring = make(num_envs=2, places=6)
    add_steps(ring, data, 0, 6)
    window = ring.gather(np.array([[3 * 2 + 1]] * 2)).data.obs
    np.testing.assert_array_equal(window.action_before[:, 0], data.action[2, :, 1])
    np.testing.assert_array_equal(window.reward_before[:, 0], data.step.reward[2, :, 1])
    assert not window.first.any()


def test_a_cut_begins_an_episode():
    data = experience(VECTORS, 6, 2, 1, 0.0)
    ring = make(places=6)
    add_steps(ring, data, 0, 3)
    ring.cut(np.array([[True], [False]]))
    add_steps(ring, data, 3, 6)
    window = ring.gather(np.array([[1]] * 2)).data.obs
    np.testing.assert_array_equal(window.first[:, 0], [[False, False, True], [False, False, False]])


@pytest.mark.parametrize("places", [5, 9])
def test_with_no_window_whole_nothing_is_drawn(places):
    ring, data = make(places=places, length=3, burn_in=2), experience(VECTORS, 5, 2, 1, 0.2)
    add_steps(ring, data, 0, 4)
    with pytest.raises(ValueError, match="holds 4 steps of each environment and no window of 5"):
        ring.draw(1, 1, 0)
    add_steps(ring, data, 4, 5)
    assert set(ring.draw(1, 20, 0).ravel()) == {0}


def test_draws_are_uniform_and_of_each_seed_alone():
    data = experience(VECTORS, 30, 2, 3, 0.2)
    ring = make(seeds=(5, 6), num_envs=3, places=20, length=2, burn_in=2)
    add_steps(ring, data, 0, 30)
    cells, draws = 17 * 3, 40_000
    for counts in (np.bincount(x.ravel(), minlength=cells) for x in ring.draw(10, draws // 10, 0)):
        statistic = ((counts - draws / cells) ** 2).sum() / (draws / cells)
        assert chi2.ppf(1e-4, cells - 1) < statistic < chi2.ppf(1 - 1e-4, cells - 1)
    alone = make(seeds=(6,), num_envs=3, places=20, length=2, burn_in=2)
    for t in range(30):
        alone.add(*jax.tree.map(lambda x: x[1:], data.at(t)))
    np.testing.assert_array_equal(alone.draw(2, 16, 3)[0], ring.draw(2, 16, 3)[1])


def test_windows_of_one_step_are_drawn_as_transitions_are():
    """The numbers drawn are those of the same stream: an agent without memory would learn from the same rows."""
    data = experience(VECTORS, 30, 2, 3, 0.2)
    sizes = {"num_envs": 3, "capacity": 60, "n_step": 2, "gamma": GAMMA}
    plain, ring = Ring(VECTORS, (0, 1), **sizes), SequenceRing(VECTORS, (0, 1), **sizes, length=1, burn_in=0)
    for t in range(30):
        plain.add(*data.at(t))
        ring.add(*data.at(t))
    one, other = plain.sample(2, 16, 3), ring.sample(2, 16, 3)
    np.testing.assert_array_equal(one.index, other.index)
    for name in ("action", "reward", "discount"):
        np.testing.assert_array_equal(getattr(one.data, name), getattr(other.data, name)[:, :, :, 0])
    window = other.data.obs
    last = window.last[..., None]
    np.testing.assert_array_equal(one.data.obs, window.obs[..., 0, :])
    np.testing.assert_array_equal(one.data.next_obs, np.take_along_axis(window.next_obs, last, 3)[..., 0, :])


def test_nothing_is_stored_beside_the_rows():
    sizes = {"num_envs": 2, "capacity": 1000, "n_step": 3, "gamma": GAMMA}
    plain = Ring(VECTORS, (0, 1), **sizes)
    assert SequenceRing(VECTORS, (0, 1), **sizes, length=64, burn_in=16).nbytes == plain.nbytes
    plain = PrioritizedRing(VECTORS, (0, 1), **sizes, rule=RULE)
    ring = PrioritizedSequenceRing(VECTORS, (0, 1), **sizes, length=64, burn_in=16, rule=RULE)
    assert ring.nbytes == plain.nbytes


def test_what_was_sampled_has_memory_of_its_own():
    data, ring = experience(VECTORS, 12, 2, 2, 0.2), make(num_envs=2, places=12)
    add_steps(ring, data, 0, 12)
    before, batch = ring.sample(2, 8, 0), ring.sample(2, 8, 0)
    for x in jax.tree.leaves(batch.data):
        x[...] = 0
    jax.tree.map(np.testing.assert_array_equal, before, ring.sample(2, 8, 0))


def unpacked(ring, index):
    way = batch_transfer(ring, raw=False)
    packed = way.pack(index)
    return packed, jax.jit(way.unpack)(packed)


KINDS: dict[str, dict[str, Any]] = {
    "uniform": {},
    "kept": {"keep_every": 3, "carry_size": CARRY},
    "prioritized": {"rule": RULE},
    "both": {"keep_every": 3, "carry_size": CARRY, "rule": RULE},
}


@pytest.mark.parametrize("spec", [VECTORS, IMAGES], ids=["vectors", "images"])
@pytest.mark.parametrize(("n_step", "burn_in", "steps", "kind"), [(1, 0, 9, "uniform"), (3, 2, 20, "both")])
def test_on_the_device_windows_are_what_the_ring_gathers(spec, n_step, burn_in, steps, kind):
    ring = make(spec, num_envs=2, places=11, n_step=n_step, burn_in=burn_in, **KINDS[kind])
    add_steps(ring, experience(spec, steps, 2, 2, 0.3), 0, steps)
    if kind == "both":
        index = ring.draw(1, 16, 0)
        ring.write_back(index, np.random.default_rng(0).exponential(size=index.shape))
    index = ring.draw(3, 16, 0)
    packed, batch = unpacked(ring, index)
    assert (len(np.unique(batch.weight)) > 2) == (kind == "both")
    assert len(packed) == (2 if spec is VECTORS else 4)
    expected = ring.gather(index)._replace(index=())
    jax.tree.map(np.testing.assert_array_equal, batch, expected)
    same = jax.tree.map(lambda x, y: x.dtype == y.dtype, batch, expected)
    assert jax.tree.all(same)


def test_an_empty_ring_packs_what_the_loop_compiles_with():
    _, batch = unpacked(make(num_envs=2), np.zeros((2, 3, 4), np.int64))
    assert batch.data.obs.obs.shape == (2, 3, 4, 3, 3)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(batch))


def restored(ring, **sizes):
    """The ring of a run that was resumed."""
    again = make(**sizes)
    kept = {name: array.copy() for name, array in ring.extra_state().items()}
    again.restore(*ring.row_range, ring.rows, kept)
    return again


@pytest.mark.parametrize("steps", [7, 20])
@pytest.mark.parametrize("kind", KINDS)
def test_a_restored_ring_gives_the_same_windows(steps, kind):
    sizes = {"num_envs": 2, "places": 11, "n_step": 2, "burn_in": 2} | KINDS[kind]
    ring, data = make(**sizes), experience(VECTORS, steps + 4, 2, 2, 0.3)
    add_steps(ring, data, 0, steps)
    again = restored(ring, **sizes)
    jax.tree.map(np.testing.assert_array_equal, ring.sample(2, 16, 0), again.sample(2, 16, 0))
    for each in (ring, again):
        each.write_back(each.draw(2, 16, 0), np.random.default_rng(0).exponential(size=(2, 2, 16)))
        add_steps(each, data, steps, steps + 4)
    jax.tree.map(np.testing.assert_array_equal, ring.sample(2, 16, 1), again.sample(2, 16, 1))


# States that are kept


def test_states_are_kept_at_every_so_many_places_of_the_ring():
    """A ring of seven places, P = 3: states before steps 0, 3, 6, and then 7, 10, 13, at places 0, 3, 6 again."""
    data, ring = experience(VECTORS, 14, 2, 1, 0.0), make(places=7, keep_every=3, carry_size=CARRY)
    kept = []
    for t in range(14):
        if ring.keeps_next:
            kept.append(t)
            ring.keep(data.carry[t])
        else:
            with pytest.raises(ValueError, match=f"no state is kept before step {t} .keep_every=3, a ring of 7 steps"):
                ring.keep(data.carry[t])
        ring.add(*data.at(t))
    assert kept == [0, 3, 6, 7, 10, 13]
    np.testing.assert_array_equal(ring.extra_state()["kept"], data.carry[[7, 10, 13]])


def test_with_no_state_to_begin_from_nothing_is_drawn():
    """Windows of five in a ring of six with a state at its first place only: none begins once that is too new."""
    ring, data = make(places=6, length=5, keep_every=6, carry_size=CARRY), experience(VECTORS, 8, 2, 1, 0.0)
    add_steps(ring, data, 0, 6)
    assert ring.starts == 1
    add_steps(ring, data, 6, 8)
    with pytest.raises(ValueError, match="no window of 5 to draw, beginning at a multiple of 6"):
        ring.draw(1, 1, 0)


def test_states_that_are_kept_count_as_memory(monkeypatch):
    sizes = {"places": 10**4, "keep_every": 10, "carry_size": 20}
    whole = make(**sizes).nbytes
    assert whole - make(places=10**4).nbytes == 2 * 1000 * 20 * 4
    monkeypatch.setattr(ring_module, "available_bytes", lambda: whole - 1)
    with pytest.raises(ConfigError, match=r"replay\.capacity=10000 needs"):
        make(**sizes)


# Priorities


def priorities(ring, num_envs=1):
    """`[T, E]` of the first seed."""
    return ring.tree.get(np.arange(ring._slots)[None]).reshape(-1, num_envs)


def test_priorities_by_hand():
    """Windows of three in a ring of five: a row has a priority as long as its window is whole, the largest at first."""
    ring, data = make(seeds=(0,), places=5, rule=RULE), experience(VECTORS, 8, 1, 1, 0.0)
    for stop, expected in ((2, [0, 0, 0, 0, 0]), (3, [1, 0, 0, 0, 0]), (4, [1, 1, 0, 0, 0])):
        add_steps(ring, data, ring.row_range[1], stop)
        np.testing.assert_array_equal(priorities(ring)[:, 0], expected)
    ring.write_back(np.array([[[0, 1]]]), np.array([[[0.5, 4.0]]]))
    np.testing.assert_allclose(priorities(ring)[:, 0], [0.5, 4, 0, 0, 0])
    for stop, expected in ((5, [0.5, 4, 4, 0, 0]), (6, [0, 4, 4, 4, 0]), (7, [0, 0, 4, 4, 4])):
        add_steps(ring, data, ring.row_range[1], stop)
        np.testing.assert_allclose(priorities(ring)[:, 0], expected)
    ring.write_back(np.array([[[1, 2]]]), np.array([[[9.0, 0.25]]]))  # row 1 is gone
    np.testing.assert_allclose(priorities(ring)[:, 0], [0, 0, 0.25, 4, 4])


def test_without_priorities_windows_are_drawn_as_by_the_uniform_ring():
    """Number by number, as long as the ring has not gone round."""
    sizes = {"num_envs": 3, "places": 30, "burn_in": 2}
    data, rings = experience(VECTORS, 25, 2, 3, 0.2), [make(**sizes, rule=RULE._replace(alpha=0.0)), make(**sizes)]
    for ring in rings:
        add_steps(ring, data, 0, 25)
    jax.tree.map(np.testing.assert_array_equal, rings[0].sample(3, 64, 2), rings[1].sample(3, 64, 2))


def test_windows_are_drawn_in_proportion_to_their_priorities():
    ring, draws = make(num_envs=2, places=20, rule=RULE), 60_000
    add_steps(ring, experience(VECTORS, 31, 2, 2, 0.2), 0, 31)
    rows = np.tile(np.arange(11 * 2, 29 * 2), (2, 1))
    errors = np.random.default_rng(0).pareto(1.5, rows.shape) + 0.05
    ring.write_back(rows[:, None], errors[:, None])
    for s, index in enumerate(ring.draw(60, draws // 60, 0)):
        counts = np.bincount(index.ravel() - 22, minlength=len(errors[s]))
        expected = draws * errors[s] / errors[s].sum()
        statistic = ((counts - expected) ** 2 / expected).sum()
        assert chi2.ppf(1e-4, len(expected) - 1) < statistic < chi2.ppf(1 - 1e-4, len(expected) - 1)


@pytest.mark.parametrize("kind", ["uniform", "prioritized"])
def test_the_replays_of_an_agent_with_memory_are_those_of_windows(kind):
    memory = {"length": 4, "burn_in": 2, "keep_every": 3}
    config = tiny_config(algorithm={"memory": memory, "n_step": 2}, replay={"kind": kind})
    ring, replay = make_ring(config, VECTORS, carry_size=7), make_replay(config, VECTORS, carry_size=7)
    assert type(ring) is (SequenceRing if kind == "uniform" else PrioritizedSequenceRing)
    assert ring.windows == (4, 2, 2, 3)
    assert {x.shape[-1] for x in jax.tree.leaves(replay.init()) if x.ndim == 3} == {7, VECTORS.action_size + 3 + 2 * 3}
    batch = jax.eval_shape(lambda: replay.sample(replay.init(), replays.start(), jax.random.key(0), jnp.int32(0), 2, 5))
    window = batch.data.obs
    assert (window.obs.shape, window.carry.shape, window.last.shape) == ((2, 5, 7, 3), (2, 5, 7), (2, 5, 6))
