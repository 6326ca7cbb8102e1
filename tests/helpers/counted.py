"""An environment written in JAX whose pictures are numbers: a step more, a grey level more."""

import jax.numpy as jnp

from ddpg_jax.envs.device.own import make_device_env


def counted(ends=100, max_episode_steps=100, first=10):
    """Counts from `first`, is terminal after `ends` steps, and pays the number that it has come to."""

    def reset(key):
        return jnp.zeros((), jnp.int32), jnp.full(1, first, jnp.float32)

    def step(steps, action, key):
        steps += 1
        number = (first + steps).astype(jnp.float32)
        return steps, number[None], number, steps >= ends

    return make_device_env(
        reset, step, action_low=[-1.0], action_high=[1.0], max_episode_steps=max_episode_steps, draw=draw
    )


def draw(obs, size):
    """One colour all over: the number, and twice and thrice of it."""
    colour = obs[0] * jnp.arange(1, 4, dtype=jnp.float32)
    return jnp.broadcast_to(colour, (size, size, 3)).astype(jnp.uint8)


def decisions(limit, repeat, draw_each, first=10):
    """By a list of pictures: of each decision of an episode of `limit` steps, its picture's numbers and its reward."""
    rows, step = [], 0
    while step < limit:
        numbers = [first + number for number in range(step + 1, min(step + repeat, limit) + 1)]
        step += len(numbers)
        padded = numbers + numbers[-1:] * (repeat - len(numbers))
        rows.append((padded if draw_each else numbers[-1:], sum(numbers)))
    return rows
