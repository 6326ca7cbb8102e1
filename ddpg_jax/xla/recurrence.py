"""A linear recurrence, in the order that the machine at hand is fastest at, and its gradient, which is one too."""

from __future__ import annotations

from typing import TypeAlias

import jax
import jax.numpy as jnp

from ddpg_jax.types import Array

Complex: TypeAlias = tuple[Array, Array]
"""Real and imaginary parts: products of complex dtypes are slow on processors and unknown to some accelerators."""


def multiply(a: Complex, b: Complex) -> Complex:
    """The product of complex numbers, part by part."""
    return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]


@jax.custom_vjp
def linear_recurrence(factor: Complex, inputs: Complex, keep: Array) -> Complex:
    """All states of h_t = keep_t·factor·h_(t−1) + inputs_t, from h_(−1) = 0.

    Args:
      factor: of each state, `[H]`.
      inputs: `[N, H]`.
      keep: 0 where the state before is forgotten, else 1; `[N]`. It has no gradient.

    Returns:
      The states, `[N, H]`.

    References:
      Blelloch, "Prefix sums and their applications" (1990), section 1.4; Martin and Cundy, "Parallelizing linear
      recurrent neural nets over sequence length", section 2 (arXiv:1709.04057).
    """
    return jax.lax.platform_dependent(factor, inputs, keep, cpu=one_after_another, default=in_parallel)


def one_after_another(factor: Complex, inputs: Complex, keep: Array) -> Complex:
    """The recurrence in N steps: least work, best where few cores do it."""

    def step(state: Complex, now: tuple[Complex, Array]) -> tuple[Complex, Complex]:
        (real, imaginary), kept = multiply(factor, state), now[1]
        state = kept * real + now[0][0], kept * imaginary + now[0][1]
        return state, state

    zeros = jnp.zeros_like(inputs[0][0]), jnp.zeros_like(inputs[1][0])
    return jax.lax.scan(step, zeros, (inputs, keep))[1]


def in_parallel(factor: Complex, inputs: Complex, keep: Array) -> Complex:
    """The recurrence by an associative scan: some 2·log2(N) steps, each over many states at once."""

    def join(early: tuple[Complex, Complex], late: tuple[Complex, Complex]) -> tuple[Complex, Complex]:
        real, imaginary = multiply(late[0], early[1])
        return multiply(late[0], early[0]), (real + late[1][0], imaginary + late[1][1])

    factors = keep[:, None] * factor[0][None], keep[:, None] * factor[1][None]
    return jax.lax.associative_scan(join, (factors, inputs))[1]


def _forward(factor: Complex, inputs: Complex, keep: Array) -> tuple[Complex, tuple[Complex, Complex, Array]]:
    states = linear_recurrence(factor, inputs, keep)
    return states, (factor, states, keep)


def _backward(saved: tuple[Complex, Complex, Array], gradient: Complex) -> tuple[Complex, Complex, None]:
    """Backward in time by the conjugate factor; what a state was told of is forgotten where it was forgotten before."""
    factor, states, keep = saved
    backward = gradient[0][::-1], gradient[1][::-1]
    kept_next = jnp.append(keep[1:], jnp.zeros_like(keep[:1]))
    real, imaginary = linear_recurrence((factor[0], -factor[1]), backward, kept_next[::-1])
    real, imaginary = real[::-1], imaginary[::-1]
    before = tuple(keep[1:, None] * state[:-1] for state in states)
    d_factor = (
        jnp.sum(real[1:] * before[0] + imaginary[1:] * before[1], 0),
        jnp.sum(imaginary[1:] * before[0] - real[1:] * before[1], 0),
    )
    return d_factor, (real, imaginary), None


linear_recurrence.defvjp(_forward, _backward)
