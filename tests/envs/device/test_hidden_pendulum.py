"""The pendulum of hidden mass, beside the plain one and beside the equation of motion."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from ddpg_jax.envs.device.hidden_pendulum import hidden_pendulum
from ddpg_jax.envs.device.pendulum import pendulum


def roll(env, steps, change=lambda state: state):
    """States and reports of random actions, `[T]`."""

    def advance(state, t):
        key = jax.random.fold_in(jax.random.key(1), t)
        action = jax.random.uniform(jax.random.fold_in(jax.random.key(2), t), (1,), minval=-1)
        following, report = env.step(state, action, key)
        return following, (state, 2 * action[0], report)

    state, _ = jax.jit(env.reset)(jax.random.key(0))
    rolled = jax.jit(lambda state: jax.lax.scan(advance, state, jnp.arange(steps))[1])
    return jax.tree.map(np.asarray, rolled(change(state)))


def test_of_mass_and_length_1_it_is_the_plain_one():
    env = hidden_pendulum(mass=(1.0, 1.0))
    start = env.reset(jax.random.key(0))[0]
    mine = roll(env, 150)[2]
    plain = roll(pendulum(), 150, lambda state: state._replace(state=start.state.pendulum))[2]
    for name in ("next_obs", "reward"):
        np.testing.assert_allclose(getattr(mine, name), getattr(plain, name), atol=1e-6)


def test_mass_and_length_act_as_they_should_and_stay_for_an_episode():
    env = hidden_pendulum((0.5, 2.0), (0.5, 1.5), max_episode_steps=20)
    episodes, torque, report = roll(env, 100)
    motion, mass, length = episodes.state
    assert len(set(mass)) == len(set(length)) == 5
    assert all(len(set(mass[i : i + 20])) == 1 for i in range(0, 100, 20))
    acceleration = 1.5 * 10 / length * np.sin(motion.angle) + 3 * torque / (mass * length**2)
    expected = np.clip(motion.velocity + 0.05 * acceleration, -8, 8)
    np.testing.assert_allclose(report.next_obs[:, 2], expected, atol=1e-5)
    assert report.truncated[19::20].all()
    assert report.truncated.sum() == 5


def test_mass_and_length_are_uniform_and_observed_where_that_is_asked_for():
    env = hidden_pendulum((0.5, 2.0), (0.5, 1.5), observed=True)
    assert env.spec.obs_shape == (5,)
    episodes, obs = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), 2000))
    np.testing.assert_array_equal(obs[:, 3:], np.stack(episodes.state[1:], -1))
    rolled = roll(env, 3)
    np.testing.assert_array_equal(rolled[2].next_obs[:, 3:], np.stack(rolled[0].state[1:], -1))
    for drawn, low, width in ((obs[:, 3], 0.5, 1.5), (obs[:, 4], 0.5, 1.0)):
        assert stats.kstest(np.asarray(drawn), "uniform", (low, width)).pvalue > 1e-3
    assert abs(np.corrcoef(obs[:, 3], obs[:, 4])[0, 1]) < 0.1
    assert hidden_pendulum().spec == pendulum().spec
