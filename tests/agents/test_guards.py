"""What is not finite is never applied: in the update, in runs of several seeds, and what is left to look at."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.envs.classic_control import PendulumEnv
from gymnasium.wrappers import TimeLimit
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from tiny_run import EPISODE, read_rows, tiny_config

import ddpg_jax as dj
from ddpg_jax.agents.algorithms import make_agent
from ddpg_jax.cli.main import main
from ddpg_jax.config.load import dump_toml
from ddpg_jax.config.schema import with_values
from ddpg_jax.envs.device.pendulum import pendulum
from ddpg_jax.errors import NotFiniteError, StorageError
from ddpg_jax.runs.directory import RunDirectory
from ddpg_jax.runs.failed_update import read_bundle, write_bundle

KEY = jax.random.key(5)
BAD = (np.nan, np.inf, -np.inf, 3e38)
VARIANTS = {
    "ddpg": {},
    "td3": {"name": "td3", "policy_delay": 2},
    "d4pg": {"name": "d4pg", "num_atoms": 5, "v_min": -10.0, "v_max": 10.0},
    "moments": {"normalization": "batch", "normalize_observations": True},
}
K = 3


@pytest.fixture(scope="module")
def made(make_tiny):
    return {name: make_tiny(max_rejected=K, **settings) for name, settings in VARIANTS.items()}


def spoilt(batches, update, row, leaf, value):
    """The batches with one number replaced."""
    index = (update, row) if leaf in ("reward",) else (update, row, 0)
    data = batches.data._replace(**{leaf: getattr(batches.data, leaf).at[index].set(value)})
    return batches._replace(data=data)


def same(a, b, *but):
    """Bit-equal, apart from some fields."""
    for name in a._fields:
        if name not in but:
            for x, y in zip(jax.tree.leaves(getattr(a, name)), jax.tree.leaves(getattr(b, name)), strict=True):
                assert np.asarray(x).tobytes() == np.asarray(y).tobytes(), name
    return True


def finite(tree):
    return all(np.isfinite(x).all() for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating))


# The update.


@pytest.mark.parametrize("name", ["ddpg", *(pytest.param(name, marks=pytest.mark.slow) for name in [*VARIANTS][1:])])
def test_an_update_that_is_not_finite_changes_nothing_wherever_that_comes_from(name, made, make_batches):
    """25 random places for each algorithm; a call of as many updates as make one round, then one that is whole."""
    tiny, chance = made[name], np.random.default_rng(len(name))
    updates = VARIANTS[name].get("policy_delay", 1)
    batches = make_batches(updates)
    state, *_ = tiny.update(tiny.init(KEY), batches, KEY)
    for _ in range(25):
        leaf = ("obs", "reward", "next_obs")[chance.integers(3)]
        value = BAD[chance.integers(3 if leaf != "reward" else 4)]
        bad = batches
        for u in range(updates):  # in each update of the round, so that none is applied
            bad = spoilt(bad, u, int(chance.integers(8)), leaf, value)
        after, metrics, td_error = tiny.update(state, bad, KEY)
        if name == "d4pg" and leaf == "reward" and not np.isnan(value):
            assert metrics["rejected"].sum() == 0  # the projection takes any reward to the support
            assert finite((after, metrics, td_error))
            continue
        assert (metrics["rejected"] == 1).all()
        assert same(after, state, "step", "rejected")
        assert int(after.step) == int(state.step) + updates
        assert finite(metrics)
        assert finite(td_error)
        assert all((np.asarray(x) == 0).all() for key, x in metrics.items() if key != "rejected")
        again, metrics, _ = tiny.update(after, batches, KEY)
        assert (metrics["rejected"] == 0).all()
        assert again.rejected.tolist() == [0, 0]


def test_of_several_updates_in_a_call_only_the_bad_one_is_left_out(made, make_batches):
    """Three updates, the second bad: as the first and the third with the counters they then have."""
    tiny, batches = made["ddpg"], make_batches(3)
    start = tiny.init(KEY)
    after, metrics, _ = tiny.update(start, spoilt(batches, 1, 2, "reward", np.nan), KEY)
    assert metrics["rejected"].tolist() == [0, 1, 0]

    def part(i):
        return jax.tree.map(lambda x: x[i : i + 1], batches)

    first, *_ = tiny.update(start, part(0), KEY)
    third, *_ = tiny.update(first._replace(step=first.step + 1), part(2), KEY)
    for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(third), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-6, atol=1e-7)


@pytest.mark.slow
def test_after_so_many_in_a_row_a_seed_is_frozen_for_good(made, make_batches):
    tiny, good = made["ddpg"], make_batches(1)
    bad = spoilt(good, 0, 0, "reward", np.inf)
    state = tiny.init(KEY)
    for _ in range(K - 1):
        state, *_ = tiny.update(state, bad, KEY)
    assert state.rejected.tolist() == [K - 1, 0]
    state, *_ = tiny.update(state, good, KEY)  # one that is whole counts them from 0 again
    assert state.rejected.tolist() == [0, 0]
    for _ in range(K):
        state, *_ = tiny.update(state, bad, KEY)
    frozen, metrics, _ = tiny.update(state, good, KEY)
    assert metrics["rejected"].tolist() == [1]
    assert same(frozen, state, "step")
    assert same(tiny.agent.reset(state, KEY), state)


def test_moments_of_a_batch_that_are_no_numbers_are_not_kept(make_tiny, make_batches):
    """One observation of 1e25: its square is infinite, and so is the batch's variance, but the loss is finite."""
    tiny = make_tiny(normalization="batch")
    state, *_ = tiny.update(tiny.init(KEY), make_batches(1), KEY)
    after, metrics, _ = tiny.update(state, spoilt(make_batches(1), 0, 0, "obs", 1e25), KEY)
    assert metrics["rejected"].tolist() == [1]
    assert same(after, state, "step", "rejected")
    assert finite(after)


@pytest.mark.parametrize("which", ["actor", "critic"])
def test_parameters_that_are_not_finite_are_not_learned_from(which, made, make_batches):
    tiny = made["ddpg"]
    state = tiny.init(KEY)
    broken = jax.tree.map(lambda x: x.at[0].set(jnp.nan), getattr(state.params, which))
    state = state._replace(params=state.params._replace(**{which: broken}))
    for _ in range(K):
        after, metrics, _ = tiny.update(state, make_batches(1), KEY)
        assert metrics["rejected"].tolist() == [1]
        state = after
    assert state.rejected.max() == K


@pytest.mark.parametrize("value", [np.inf, np.nan])
@pytest.mark.parametrize("path", ["critic_learning_rate", "actor_learning_rate", "tau", "max_grad_norm", "gamma"])
def test_steps_that_would_lead_to_infinity_are_not_made(path, value, make_batches, spec):
    """The gradient is finite, a number of the lane is not: only a caller who traces them can ask for that."""
    config = tiny_config(algorithm={"hidden": [4], "batch_size": 8, "max_grad_norm": 1.0})

    @jax.jit
    def updated(value):
        agent = make_agent(with_values(config, {f"algorithm.{path}": value}), spec)
        return agent.init(KEY), agent.update(agent.init(KEY), make_batches(1), KEY)

    state, (after, metrics, _) = updated(jnp.float32(value))
    assert metrics["rejected"].tolist() == [1]
    assert same(after, state, "step", "rejected")
    assert updated(jnp.float32(0.01))[1][1]["rejected"].tolist() == [0]


@pytest.mark.parametrize("name", ["ddpg", pytest.param("td3", marks=pytest.mark.slow)])
@pytest.mark.parametrize("decay", ["none", "l2", pytest.param("decoupled", marks=pytest.mark.slow)])
@pytest.mark.parametrize("limit", [None, pytest.param(1.0, marks=pytest.mark.slow)])
def test_the_largest_gradients_that_are_let_through_leave_everything_finite(name, decay, limit, make_batches, spec):
    """Rewards of all sizes up to where the loss, then the gradient overflows, ten updates of each."""
    decays = {} if decay == "none" else {"critic_weight_decay": 1.0, "actor_weight_decay": 1.0}
    settings = {"name": name, "hidden": [4], "batch_size": 8, "weight_decay": decay, "critic_learning_rate": 1.0}
    agent = make_agent(tiny_config(algorithm=settings | {"max_grad_norm": limit} | decays), spec)
    batches = make_batches(10)

    @jax.jit
    def updated(size):
        data = batches.data._replace(reward=size * batches.data.reward)
        return agent.update(agent.init(KEY), batches._replace(data=data), KEY)

    refused = []
    for size in np.logspace(0, 38, 39):
        state, metrics, td_error = updated(jnp.float32(size))
        assert finite((state, metrics, td_error))
        refused.append(float(metrics["rejected"].sum()))
    assert refused[0] == 0
    assert refused[-1] == 10


def test_errors_of_a_bad_update_ask_for_no_priority(made, make_batches):
    _, _, td_error = made["ddpg"].update(made["ddpg"].init(KEY), spoilt(make_batches(1), 0, 3, "reward", 3e38), KEY)
    assert float(td_error[0, 3]) == 0.0
    assert (np.asarray(td_error[0, :3]) != 0).all()


@pytest.mark.slow
def test_one_lane_of_eight_diverges_and_the_others_do_not_notice(made, make_batches):
    tiny, batches = made["td3"], make_batches(2)
    keys = jax.random.split(KEY, 8)
    update = jax.jit(jax.vmap(tiny.agent.update))
    states = jax.vmap(tiny.agent.init)(keys)
    lanes = jax.tree.map(lambda x: jnp.stack([x] * 8), batches)
    bad = lanes._replace(data=lanes.data._replace(reward=lanes.data.reward.at[3, :, 0].set(jnp.nan)))
    clean = broken = states
    for _ in range(K + 1):
        clean, *_ = update(clean, lanes, keys)
        broken, metrics, _ = update(broken, bad, keys)
    assert np.asarray(metrics["rejected"]).sum(1).tolist() == [0, 0, 0, 2, 0, 0, 0, 0]
    for lane in (0, 1, 2, 4, 5, 6, 7):
        a, b = (jax.tree.map(lambda x, lane=lane: x[lane], each) for each in (clean, broken))
        assert same(a, b)
    assert finite(broken)


# Runs.


class Huge(PendulumEnv):
    """The second one that is made pays 3e38 for everything: finite, but its square is not."""

    made = 0

    def __init__(self):
        super().__init__()
        self._huge = Huge.made in Huge.which
        Huge.made += 1

    which = (1,)

    def step(self, u):
        obs, reward, *rest = super().step(u)
        return obs, 3e38 if self._huge else reward, *rest


@pytest.fixture(autouse=True)
def huge():
    Huge.made, Huge.which = 0, (1,)
    gymnasium.register("Huge-v0", lambda: TimeLimit(Huge(), EPISODE))
    yield
    gymnasium.registry.pop("Huge-v0")


def without(rows, seed):
    return [row for row in rows if row["seed"] != seed]


def test_a_seed_that_diverges_is_marked_and_the_others_end_with_the_same_bits(tmp_path, monkeypatch, caplog, capsys):
    config = tiny_config(env={"id": "Huge-v0"}, seeds=[4, 9, 2], logging={"every": 10})
    run = dj.train(config, tmp_path / "run")
    assert "seed 9 has diverged and is frozen, after 10 updates in a row" in caplog.text
    rows = read_rows(run.directory / "metrics.jsonl")
    assert [(r["seed"], r["step"], r["updates"]) for r in rows if r["event"] == "diverged"] == [(9, 40, 19)]
    updates = [row for row in rows if row["event"] == "update" and row["seed"] == 9]
    assert {row["rejected"] for row in updates} == {1.0}
    assert not any("critic_loss" in row for row in updates)
    assert (run.result["seeds"], run.result["diverged_seeds"]) == ([4, 2], [9])
    assert len(run.result["final"]["per_seed"]) == 2

    Huge.made, Huge.which = 0, ()
    clean = dj.train(config, tmp_path / "clean")
    assert without(read_rows(clean.directory / "metrics.jsonl"), 9) == without(rows, 9)
    a, b = (load_file(r.directory / "checkpoints" / "final.safetensors") for r in (run, clean))
    for name in a:
        assert a[name][[0, 2]].tobytes() == b[name][[0, 2]].tobytes(), name
        assert np.isfinite(a[name]).all()

    path = tmp_path / "run" / "not-finite-seed-9.safetensors"
    assert main(["reproduce", str(path)]) == 4
    said = capsys.readouterr().out
    assert "ddpg on Huge-v0, seed 9, after update 19" in said
    assert "a call of 1 updates with 4 transitions each: 1 are not finite" in said
    assert "agents/policy_gradient.py" in said
    assert "reward       3e+38" in said


@pytest.mark.slow
def test_a_diverged_seed_stays_marked_after_a_resume(tmp_path, caplog):
    config = tiny_config(env={"id": "Huge-v0"}, logging={"every": 10}, checkpoint={"every": 5, "min_seconds": 0.0})
    whole = dj.train(config, tmp_path / "whole")
    Huge.made = 0
    run = dj.train(config.model_copy(update={"total_steps": 50}), tmp_path / "run")
    Huge.made = 0
    run = dj.resume_run(tmp_path / "run", total_steps=60)
    assert run.result["diverged_seeds"] == [9]
    events = [(r["event"], r["step"]) for r in read_rows(run.directory / "metrics.jsonl") if r["event"] == "diverged"]
    assert events == [("diverged", 40)]
    a, b = (load_file(r.directory / "checkpoints" / "final.safetensors") for r in (run, whole))
    assert all(a[name].tobytes() == b[name].tobytes() for name in a)


@pytest.mark.parametrize("loop", ["host", pytest.param("device", marks=pytest.mark.slow)])
def test_where_all_seeds_diverge_the_run_ends_with_exit_4(loop, tmp_path, monkeypatch, capsys):
    Huge.which = (0,)

    def paying_too_much(config):
        env = pendulum(EPISODE)

        def step(state, action, key):
            state, result = env.step(state, action, key)
            return state, result._replace(reward=jnp.full_like(result.reward, 1e30))  # no float32 when squared

        return env._replace(step=step)

    monkeypatch.setattr("ddpg_jax.training.factory.device_env", paying_too_much)
    identifier = {"host": "Huge-v0", "device": "jax:pendulum"}[loop]
    config = tiny_config(env={"id": identifier}, seeds=[4], checkpoint={"every": 5, "min_seconds": 0.0})
    (tmp_path / "tiny.toml").write_text(dump_toml(config))
    assert main(["train", str(tmp_path / "tiny.toml"), "--run-dir", str(tmp_path / "run"), "--quiet"]) == 4
    said = capsys.readouterr().err
    assert "all seeds have diverged: 10 updates in a row were not finite" in said
    path = tmp_path / "run" / "not-finite-seed-4.safetensors"
    assert f"ddpg-jax reproduce {path}" in said
    assert main(["reproduce", str(path)]) == 4
    assert main(["verify", str(tmp_path / "run")]) == 0  # the checkpoints from before are there


# Bundles.


@pytest.fixture
def written(tmp_path, made, make_batches, spec):
    config = dj.load_config(algorithm={"hidden": (16, 16), "batch_size": 8, "max_rejected": K})
    state, bad = made["ddpg"].init(KEY), spoilt(make_batches(1), 0, 5, "reward", np.nan)
    path = tmp_path / "b.safetensors"
    batches = iter([make_batches(1), bad._replace(index=()), make_batches(1)])
    assert write_bundle(path, config, spec, 3, state._replace(rejected=state.rejected + K), batches)
    return path, state, bad


def test_a_bundle_holds_the_first_batch_that_cannot_be_learned_from(written):
    path, state, bad = written
    read = read_bundle(path)
    assert (read.seed, read.config.algorithm.hidden) == (3, (16, 16))
    assert same(read.state, state)
    assert np.isnan(read.batch.data.reward[0, 5])
    np.testing.assert_array_equal(read.batch.data.obs, bad.data.obs)


def test_a_bundle_without_such_a_batch_says_so(tmp_path, made, make_batches, capsys, spec):
    config = dj.load_config(algorithm={"hidden": (16, 16), "batch_size": 8})
    path = tmp_path / "b.safetensors"
    batches = [make_batches(1)._replace(index=())]
    assert not write_bundle(path, config, spec, 3, made["ddpg"].init(KEY), batches)
    assert main(["reproduce", str(path)]) == 0
    assert "0 are not finite" in capsys.readouterr().out


def test_what_is_no_bundle_is_refused(written, tmp_path, capsys):
    path, *_ = written
    whole = path.read_bytes()
    other = tmp_path / "other.safetensors"
    for content in (b"", whole[:-1], whole[:100], b"\xff" * 64):
        other.write_bytes(content)
        with pytest.raises(StorageError, match="cannot be read"):
            read_bundle(other)
    with pytest.raises(StorageError, match=f"{tmp_path} is a directory; it holds no bundle"):
        read_bundle(tmp_path)
    other.rename(RunDirectory(tmp_path).bundle(3))
    with pytest.raises(StorageError, match=r"is a directory; its bundles: .*/not-finite-seed-3\.safetensors"):
        read_bundle(tmp_path)
    save_file({"x": np.zeros(2)}, other, {"format": "pt"})
    with pytest.raises(StorageError, match="not a file of this format"):
        read_bundle(other)
    with safe_open(path, "np") as file:
        text, arrays = dict(file.metadata()), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    del text["sha256"]  # a forger leaves it out, as earlier versions did
    save_file({name: x for name, x in arrays.items() if name != "batch/weight"}, other, text)
    with pytest.raises(StorageError, match="holds no batch"):
        read_bundle(other)
    save_file(arrays | {"batch/data/reward": np.zeros((1, 7), np.float32)}, other, text)
    with pytest.raises(StorageError, match=r"batch/data/reward: expected float32\[1, 8\]"):
        read_bundle(other)
    save_file(arrays, other, text | {"seed": "-1"})
    with pytest.raises(StorageError, match="seed -1 is none"):
        read_bundle(other)
    odd = {name: x[[0, 0, 0]] if name.startswith("batch") else x for name, x in arrays.items()}
    save_file(odd, other, text | {"config": text["config"].replace('name = "ddpg"', 'name = "td3"')})
    with pytest.raises(StorageError, match="does not fit the configuration"):
        read_bundle(other)
    empty = {name: x[:0] if name.startswith("batch") else x for name, x in arrays.items()}
    save_file(empty, other, text)
    with pytest.raises(StorageError, match="whole rounds, but 0 of 8"):
        read_bundle(other)
    save_file(arrays, other, text | {"seed": "x"})
    assert main(["reproduce", str(other)]) == 5
    assert "cannot be read" in capsys.readouterr().err
    save_file(arrays, other, text | {"config": "[algorithm]\ntau = 2"})
    assert main(["reproduce", str(other)]) == 2


def test_a_bundle_that_cannot_be_written_does_not_end_the_run(tmp_path, monkeypatch, caplog):
    def full(*arguments):
        raise OSError("no space left")

    monkeypatch.setattr("ddpg_jax.training.recorder.write_bundle", full)
    run = dj.train(tiny_config(env={"id": "Huge-v0"}), tmp_path / "run")
    assert "not-finite-seed-9.safetensors cannot be written: no space left" in caplog.text
    assert run.result["diverged_seeds"] == [9]
    assert issubclass(NotFiniteError, Exception)
