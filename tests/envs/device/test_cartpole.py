"""Cart-pole swing-up against the laws of motion in NumPy, and rewards by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpg_jax.envs.device.autoreset import Episode
from ddpg_jax.envs.device.cartpole import RAIL, CartPole, cartpole_swingup, reset, reward

CART, POLE, HALF, GRAVITY = 1.0, 0.1, 0.5, 9.81


def accelerations(angle, spin, force):
    """Of cart and pole, from the equations of Lagrange, which are linear in them."""
    coupling = POLE * HALF * np.cos(angle)
    mass = np.array([[CART + POLE, coupling], [coupling, POLE * HALF**2 + POLE * (2 * HALF) ** 2 / 12]])
    forces = np.array([force + POLE * HALF * np.sin(angle) * spin**2, POLE * GRAVITY * HALF * np.sin(angle)])
    return np.linalg.solve(mass, forces)


def played(state, actions):
    """States `[T, 4]` and rewards of the whole environment from a state."""
    env = cartpole_swingup()

    def step(episode, action):
        episode, report = env.step(episode, action[None], jax.random.key(0))
        return episode, (jnp.stack(episode.state), report.next_obs, report.reward)

    episode = Episode(CartPole(*jnp.asarray(state, jnp.float32)), jnp.zeros((), jnp.int32))
    return map(np.asarray, jax.lax.scan(step, episode, jnp.asarray(actions, jnp.float32))[1])


def test_two_seconds_of_random_pushes_equal_an_integration_by_numpy():
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, 200)
    state = np.array([0.1, np.pi + 0.3, 0.2, -0.5])
    states, obs, rewards = played(state, actions)
    for t, action in enumerate(actions):
        cart, turn = accelerations(state[1], state[3], 10 * action)
        state[2:] += 0.01 * np.array([cart, turn])
        state[:2] += 0.01 * state[2:]
        x, angle, velocity, spin = state
        np.testing.assert_allclose(states[t], state, atol=2e-4)
        np.testing.assert_allclose(obs[t], [x, np.cos(angle), np.sin(angle), velocity, spin], atol=2e-4)
        small = [1 + 0.1 ** ((x / 2) ** 2), 1 + 0.1 ** ((spin / 5) ** 2), 1 + np.cos(angle), 5 - action**2]
        np.testing.assert_allclose(rewards[t], np.prod(small) / 40, atol=2e-4)
    assert np.abs(states[:, 0]).max() < RAIL


def test_no_energy_is_made_or_lost_without_a_push():
    """Within what steps of 0.01 s cost; the pole falls through its lowest point and back up."""
    states, _, _ = played([0, 0.5, 0, 0], np.zeros(150))
    _, angle, velocity, spin = states.T.astype(np.float64)
    moving = (CART + POLE) * velocity**2 / 2 + POLE * HALF * velocity * spin * np.cos(angle)
    energy = moving + POLE * HALF**2 * 4 / 6 * spin**2 + POLE * GRAVITY * HALF * np.cos(angle)
    assert np.ptp(np.cos(angle)) > 1.8
    assert np.ptp(energy) < 0.03 * POLE * GRAVITY * HALF * 2


@pytest.mark.parametrize("side", [-1, 1])
def test_the_cart_stops_at_the_end_of_its_rail(side):
    states, _, _ = played([0, np.pi, 0, 0], np.full(120, side))
    assert np.isclose(states[-1, 0], side * RAIL)
    assert states[-1, 2] == 0
    assert np.abs(states[:, 0]).max() <= RAIL + 1e-6
    back, _, _ = played(states[-1], np.full(20, -side))
    assert side * back[-1, 0] < RAIL - 0.05  # it is not stuck there


@pytest.mark.parametrize(
    ("state", "push", "value"),
    [
        ((0, 0, 0, 0), 0, 1),
        ((0, 0, 0, 0), 1, 0.8),
        ((0, np.pi / 2, 0, 0), 0, 0.5),
        ((0, np.pi, 0, 0), 0, 0),
        ((1, 0, 3, 0), 0, (1 + 0.5623413) / 2),  # 0.1^(1/4)
        ((0, 0, 0, -5), 0, 0.55),
        ((-1, 0, 0, 2.5), -1, 0.8 * ((1 + 0.5623413) / 2) ** 2),
    ],
)
def test_rewards_by_hand(state, push, value):
    assert reward(CartPole(*map(jnp.float32, state)), jnp.float32(push)) == pytest.approx(value, abs=1e-6)


def test_it_begins_near_hanging_down():
    states, obs = jax.vmap(reset)(jax.random.split(jax.random.key(0), 500))
    offsets = np.stack(states) - np.array([0, np.pi, 0, 0])[:, None]
    np.testing.assert_allclose(offsets.std(1), 0.01, rtol=0.15)
    np.testing.assert_allclose(offsets.mean(1), 0, atol=0.002)
    assert (obs[:, 1] < -0.99).all()
