"""The section `[algorithm.memory]` of a configuration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ddpg_jax.config.marks import LEARNING, STRUCTURAL, TRACED
from ddpg_jax.config.section import Fraction, Rate, Section


class MemoryConfig(Section):
    """`[algorithm.memory]`: what an agent remembers of its episode; without the table, nothing."""

    cell: Annotated[Literal["lstm", "gru", "lru"], STRUCTURAL] = "lstm"
    """how it remembers; lru: a linear recurrence, the fastest where windows are long"""
    hidden: Annotated[int, Field(ge=1, le=65536), STRUCTURAL] = 128
    """numbers that it remembers"""
    length: Annotated[int, Field(ge=1, le=4096), LEARNING] = 64
    """steps of a window that are learned from"""
    burn_in: Annotated[int, Field(ge=0, le=4096), LEARNING] = 0
    """steps before them that are only remembered"""
    keep_every: Annotated[int, Field(ge=0, le=4096), STRUCTURAL] = 0
    """steps between two states that are kept while acting, from which windows begin; 0: they begin from zeros"""
    obs_embedding: Annotated[int, Field(ge=1, le=65536), STRUCTURAL] = 32
    """width of the layer that takes the observation in"""
    action_embedding: Annotated[int, Field(ge=0, le=65536), STRUCTURAL] = 16
    """likewise the action before; 0: it is not taken in"""
    reward_embedding: Annotated[int, Field(ge=0, le=65536), STRUCTURAL] = 8
    """likewise the reward before"""
    learning_rate: Annotated[Rate | None, TRACED, LEARNING] = None
    """of what takes in and remembers; left out: as the rest of the network"""
    priority_of_largest: Annotated[Fraction, LEARNING] = 0.9
    """share of a window's largest error in its priority; the rest is the mean"""
