"""The arm against the equations of Lagrange, differentiated numerically, and where it begins."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpg_jax.envs.device.reacher import Reacher, advance, reacher, reset, step, tip

LENGTH, MASS, DAMPING = 0.5, 1.0, 0.5


def inertia(angles):
    """The matrix of two uniform rods, from the Jacobians of their middles."""
    first, both = angles[0], angles[0] + angles[1]
    turn = MASS * LENGTH**2 / 12
    inner = LENGTH / 2 * np.array([[-np.sin(first), 0], [np.cos(first), 0]])
    outer = LENGTH / 2 * np.array([[-np.sin(both)] * 2, [np.cos(both)] * 2])
    outer[:, 0] += LENGTH * np.array([-np.sin(first), np.cos(first)])
    return MASS * (inner.T @ inner + outer.T @ outer) + turn * (np.array([[1, 0], [0, 0]]) + np.ones((2, 2)))


def rotation(angles, velocities, h=1e-5):
    """d/dt(∂T/∂v) − ∂T/∂q without the part of accelerations, T being v·M(q)·v/2."""
    steps = np.eye(2) * h
    slopes = np.array([(inertia(angles + d) - inertia(angles - d)) / (2 * h) for d in steps])
    return np.einsum("i,ijk,k->j", velocities, slopes, velocities) - slopes @ velocities @ velocities / 2


def test_a_moment_of_motion_equals_the_equations_of_lagrange():
    rng = np.random.default_rng(0)
    for dt in (1e-2, 0.025):
        for _ in range(10):
            angles, velocities, torques = rng.uniform(-3, 3, (3, 2))
            state = Reacher(*(jnp.asarray(x, jnp.float32) for x in (angles, velocities, np.zeros(2))))
            moved = advance(state, jnp.asarray(torques, jnp.float32), dt)
            # the damping is that of the new velocities w: M·(w − v)/dt + c = torques − d·w
            right = inertia(angles) @ velocities + dt * (torques - rotation(angles, velocities))
            expected = np.linalg.solve(inertia(angles) + dt * DAMPING * np.eye(2), right)
            np.testing.assert_allclose(moved.velocities, expected, atol=1e-4)
            np.testing.assert_allclose(moved.angles, angles + dt * expected, atol=1e-5)


def test_the_middle_joint_of_a_stretched_arm_turns_it_back():
    """Of hand: M is [[2/3, 5/24], [5/24, 1/12]], so a torque at the elbow alone turns the shoulder the other way."""
    state = Reacher(jnp.zeros(2), jnp.zeros(2), jnp.zeros(2))
    moved = advance(state, jnp.array([0.0, 1.0]), 1e-4)
    determinant = 2 / 3 / 12 - (5 / 24) ** 2
    np.testing.assert_allclose(moved.velocities, 1e-4 * np.array([-5 / 24, 2 / 3]) / determinant, rtol=6e-3)


@pytest.mark.parametrize(
    ("angles", "target", "distance"),
    [
        ((0, 0), (1, 0), 0),
        ((0, np.pi), (0.3, 0.4), 0.5),
        ((np.pi / 2, 0), (0, -0.5), 1.5),
        ((0, np.pi / 2), (0.5, 0), 0.5),
    ],
)
def test_the_reward_is_the_distance(angles, target, distance):
    state = Reacher(jnp.float32(angles), jnp.zeros(2), jnp.float32(target))
    _, obs, reward, terminated, truncated = step(state, jnp.zeros(2), jax.random.key(0))  # at rest it stays
    assert reward == pytest.approx(-distance, abs=1e-6)
    expected = [np.cos(angles[0]), np.sin(angles[0]), np.cos(angles[1]), np.sin(angles[1]), 0, 0, *target]
    np.testing.assert_allclose(obs, expected, atol=1e-6)
    assert (terminated, truncated) == (False, False)


def test_targets_lie_within_reach_and_angles_anywhere():
    states, obs = jax.vmap(reset)(jax.random.split(jax.random.key(0), 2000))
    radius = np.linalg.norm(states.target, axis=1)
    assert 0.2 <= radius.min() < 0.25
    assert 0.88 < radius.max() <= 0.9
    np.testing.assert_allclose(np.mean(radius**2), (0.2**2 + 0.9**2) / 2, atol=0.02)  # uniform in area
    np.testing.assert_allclose(np.mean(states.target, 0), 0, atol=0.05)
    np.testing.assert_allclose(np.std(states.angles, 0), np.pi / 3**0.5, rtol=0.05)
    np.testing.assert_array_equal(np.asarray(states.velocities), 0)
    np.testing.assert_array_equal(obs[:, 6:], states.target)


def test_the_hardest_push_stays_stable_and_a_simple_controller_reaches_the_target():
    env = reacher()

    def play(number, policy):
        begin, acting = jax.random.split(jax.random.key(number))

        def one(carry, t):
            state, obs = carry
            state, report = env.step(state, policy(obs, t), jax.random.fold_in(acting, t))
            return (state, report.next_obs), (report.reward, report.next_obs)

        return jax.lax.scan(one, env.reset(begin), jnp.arange(env.max_episode_steps - 1))[1]

    def pull(obs, t):
        """Pulls the tip to its target: torques of a spring, by the transposed Jacobian."""
        first = jnp.arctan2(obs[1], obs[0])
        angles = jnp.stack([first, jnp.arctan2(obs[3], obs[2])])
        return jax.jacobian(tip)(angles).T @ (obs[6:] - tip(angles)) * 8 - 0.3 * obs[4:6]

    numbers = jnp.arange(16)
    rewards, _ = jax.jit(jax.vmap(lambda number: play(number, pull)))(numbers)
    assert (rewards[:, -1] > -0.1).all()
    assert np.mean(rewards[:, 0]) < -0.5
    to_and_fro = jax.vmap(lambda number: play(number, lambda obs, t: jnp.where(t % 10 < 5, jnp.ones(2), -jnp.ones(2))))
    _, obs = jax.jit(to_and_fro)(numbers)
    assert np.abs(obs[..., 4:6]).max() < 30
