"""The meter's numbers by hand, and that it does not matter when they are settled."""

import jax.numpy as jnp
import numpy as np
import pytest

from ddpg_jax.errors import NotFiniteError
from ddpg_jax.training.host.metrics import EpisodeMetrics
from ddpg_jax.types import Step

NAMES = ("critic_loss", "max_q", "rejected")


def metrics(*updates):
    """`[S, U, K]` of one seed for each argument: a list of (critic_loss, max_q), of updates that were applied."""
    return jnp.array([[(*each, 0.0) for each in one] for one in updates], jnp.float32)


def step(reward, terminated, truncated=None):
    """What lanes report; only reward and ends matter here."""
    terminated = np.array(terminated, bool)
    truncated = np.zeros_like(terminated) if truncated is None else np.array(truncated, bool)
    return Step(None, None, np.array(reward, np.float32), terminated, truncated)


def test_an_episode_that_crosses_reports():
    meter = EpisodeMetrics((7,), 1, NAMES)
    meter.on_step(step([[1.0]], [[False]]), 1)  # before any update
    assert meter.flush(1) == []

    meter.on_update(metrics([(4.0, 10.0), (6.0, 20.0)]))
    meter.on_step(step([[2.0]], [[False]]), 2)
    assert meter.flush(2) == [
        {"event": "update", "seed": 7, "step": 2, "updates": 2, "critic_loss": 5.0, "max_q": 20.0, "rejected": 0.0}
    ]

    meter.on_update(metrics([(1.0, 60.0)]))
    meter.on_step(step([[4.0]], [[True]]), 3)  # ends: three updates in it, (10 + 20 + 60) / 3
    meter.on_update(metrics([(3.0, -8.0)]))
    meter.on_step(step([[0.5]], [[False]], [[True]]), 4)  # an episode of one step and one update, cut by time
    episode, second, update = meter.flush(4)
    assert episode == {
        "event": "episode",
        "seed": 7,
        "step": 3,
        "env": 0,
        "episode": 0,
        "episode_return": 7.0,
        "episode_length": 3,
        "episode_max_q": 30.0,
    }
    assert second == episode | {
        "step": 4, "episode": 1, "episode_return": 0.5, "episode_length": 1, "episode_max_q": -8.0
    }  # fmt: skip
    means = {"critic_loss": 2.0, "max_q": 60.0, "rejected": 0.0}
    assert update == {"event": "update", "seed": 7, "step": 4, "updates": 4, **means}
    assert meter.updates == 4


def test_an_episode_without_updates_has_no_predicted_value():
    meter = EpisodeMetrics((0,), 1, NAMES)
    meter.on_step(step([[1.0]], [[True]]), 1)
    meter.on_update(metrics([(1.0, 5.0)]))
    meter.on_step(step([[1.0]], [[True]]), 2)
    first, second, _ = meter.flush(2)
    assert "episode_max_q" not in first
    assert second["episode_max_q"] == 5.0


def test_stepped_returns_where_an_episode_ended():
    meter = EpisodeMetrics((0, 1), 2, NAMES)
    ended = meter.on_step(step(np.ones((2, 2)), [[True, False], [False, False]], [[False, False], [True, False]]), 2)
    np.testing.assert_array_equal(ended, [[True, False], [True, False]])


def test_seeds_and_environments_are_told_apart():
    meter = EpisodeMetrics((3, 5), 2, NAMES)
    meter.on_update(metrics([(1.0, 10.0)], [(2.0, 20.0)]))
    meter.on_step(step([[1, 2], [3, 4]], [[False, True], [False, False]]), 2)
    meter.on_update(metrics([(3.0, 30.0)], [(4.0, 60.0)]))
    meter.on_step(step([[10, 20], [30, 40]], [[False, True], [True, False]]), 4)
    rows = meter.flush(4)
    episodes = [
        (r["seed"], r["env"], r["episode"], r["step"], r["episode_return"], r["episode_length"], r["episode_max_q"])
        for r in rows
        if r["event"] == "episode"
    ]
    assert episodes == [(3, 1, 0, 2, 2.0, 1, 10.0), (3, 1, 1, 4, 20.0, 1, 30.0), (5, 0, 0, 4, 33.0, 2, 40.0)]
    assert [(r["seed"], r["critic_loss"]) for r in rows if r["event"] == "update"] == [(3, 2.0), (5, 3.0)]


def test_episodes_do_not_depend_on_when_they_are_settled():
    """Against a plain record of 60 steps, two seeds, two environments, 0 to 2 updates a step."""
    rng = np.random.default_rng(0)
    reward, done = rng.normal(size=(60, 2, 2)).astype(np.float32), rng.random((60, 2, 2)) < 0.15
    blocks = [rng.normal(size=(2, n, 2)).astype(np.float32) for n in rng.integers(0, 3, 60)]

    expected = []
    for s, e in np.ndindex(2, 2):
        begin = 0
        for number, end in enumerate(np.flatnonzero(done[:, s, e]).tolist()):
            seen = np.concatenate([b[s, :, 1] for b in blocks[begin : end + 1]])
            total = reward[begin : end + 1, s, e].sum(dtype=np.float64)
            expected.append((s, e, number, end + 1, total, end + 1 - begin, seen.mean() if len(seen) else None))
            begin = end + 1

    for every in (1, 7, 60):
        meter, rows = EpisodeMetrics((0, 1), 2, NAMES), []
        for t in range(60):
            if blocks[t].shape[1]:
                applied = np.zeros((*blocks[t].shape[:2], 1), np.float32)
                meter.on_update(jnp.asarray(np.concatenate([blocks[t], applied], -1)))
            meter.on_step(step(reward[t], done[t]), t + 1)
            if (t + 1) % every == 0 or t == 59:
                rows += [row for row in meter.flush(t + 1) if row["event"] == "episode"]
        rows.sort(key=lambda r: (r["seed"], r["env"], r["episode"]))
        assert len(rows) == len(expected) > 20
        for row, (s, e, number, at, total, length, max_q) in zip(rows, expected, strict=True):
            assert (row["seed"], row["env"], row["episode"], row["step"]) == (s, e, number, at)
            assert row["episode_length"] == length
            np.testing.assert_allclose(row["episode_return"], total, rtol=1e-6)
            assert ("episode_max_q" in row) == (max_q is not None)
            if max_q is not None:
                np.testing.assert_allclose(row["episode_max_q"], max_q, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_metric_that_is_not_finite_is_named(value):
    meter = EpisodeMetrics((31, 57), 1, NAMES)
    meter.on_update(jnp.zeros((2, 2, 3)))
    meter.flush(2)
    meter.on_update(jnp.zeros((2, 1, 3)))
    meter.on_update(jnp.zeros((2, 3, 3)).at[1, 1, 1].set(value).at[1, 2, 0].set(value))  # update 5 of seed 57 first
    with pytest.raises(NotFiniteError, match=rf"seed 57\b.*max_q.*{value}.*update 5\b"):
        meter.flush(6)


def test_a_diagnostic_that_is_not_finite_is_named():
    """The last update before a report may break the parameters while its own metrics are still whole."""
    meter = EpisodeMetrics((31, 57), 1, NAMES)
    meter.on_update(metrics([(1.0, 2.0)], [(1.0, 2.0)]))
    with pytest.raises(NotFiniteError, match="seed 57: target_distance is not finite after 1 updates"):
        meter.flush(1, {"target_distance": jnp.array([0.1, jnp.nan])})


def test_updates_that_were_rejected_do_not_count():
    """By hand: of three updates the second was rejected, and its numbers are 0."""
    meter = EpisodeMetrics((7,), 1, NAMES)
    meter.on_update(jnp.array([[(4.0, -10.0, 0.0), (0.0, 0.0, 1.0), (6.0, -20.0, 0.0)]]))
    (row,) = meter.flush(3)
    assert row == {
        "event": "update",
        "seed": 7,
        "step": 3,
        "updates": 3,
        "critic_loss": 5.0,
        "max_q": -10.0,
        "rejected": pytest.approx(1 / 3),
    }
    meter.on_update(jnp.array([[(0.0, 0.0, 1.0)]]))
    assert meter.flush(4) == [{"event": "update", "seed": 7, "step": 4, "updates": 4, "rejected": 1.0}]


def test_rejected_updates_do_not_count_in_the_value_of_an_episode():
    """Q of 10 and 30 were predicted by updates that were applied, across two reports: 20; and then by none."""
    meter = EpisodeMetrics((7,), 1, NAMES)
    meter.on_update(jnp.array([[(4.0, 10.0, 0.0), (0.0, 0.0, 1.0)]]))
    meter.on_step(step([[1.0]], [[False]]), 1)
    meter.flush(1)
    meter.on_update(jnp.array([[(0.0, 0.0, 1.0), (4.0, 30.0, 0.0)]]))
    meter.on_step(step([[1.0]], [[True]]), 2)
    meter.on_update(jnp.array([[(0.0, 0.0, 1.0)]]))
    meter.on_step(step([[1.0]], [[True]]), 3)
    first, second, _ = meter.flush(3)
    assert first["episode_max_q"] == 20.0
    assert "episode_max_q" not in second


def test_a_meter_goes_on_where_another_was():
    """Whether or not everything was settled; and an episode that is given up leaves no trace."""
    one = EpisodeMetrics((7, 8), 2, NAMES)
    one.on_update(metrics([(1.0, 2.0)], [(3.0, 4.0)]))
    one.on_step(step([[1.0, 2.0], [3.0, 4.0]], [[False, True], [False, False]]), 1)
    other = EpisodeMetrics((7, 8), 2, NAMES)
    other.restore({name: x.copy() for name, x in one.state().items()})
    abandoned = EpisodeMetrics((7, 8), 2, NAMES)
    abandoned.restore(one.state())
    abandoned.abandon(np.array([[True, False], [False, False]]))
    abandoned.abandon(np.zeros((2, 2), bool))
    rows = []
    for meter in (one, other, abandoned):
        meter.on_update(metrics([(5.0, 6.0)], [(7.0, 8.0)]))
        meter.on_step(step([[1.0, 1.0], [1.0, 1.0]], [[True, False], [True, False]]), 2)
        rows.append(meter.flush(2))
    assert rows[0] == rows[1]
    assert (one.returns == other.returns).all()
    given_up = [row for row in rows[2] if row["event"] == "episode"]
    assert [
        (r["seed"], r["env"], r["episode"], r["episode_return"], r["episode_length"], r["episode_max_q"])
        for r in given_up
    ] == [
        (7, 1, 0, 2.0, 1, 2.0),
        (7, 0, 1, 1.0, 1, 6.0),
        (8, 0, 0, 4.0, 2, 6.0),
    ]
