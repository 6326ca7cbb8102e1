"""`[env.pixels]` and `[algorithm.encoder]`: pictures in the place of observations, and what takes them in."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ddpg_jax.config.marks import LEARNING, STRUCTURAL, TRACED
from ddpg_jax.config.section import Rate, Section, Width


class PixelsConfig(Section):
    """`[env.pixels]`: the agent sees pictures that the environment draws; without the table, what it observes."""

    size: Annotated[int, Field(ge=8, le=512), STRUCTURAL] = 84
    """height and width of a picture"""
    gray: Annotated[bool, STRUCTURAL] = False
    """one channel of brightness in the place of red, green and blue"""
    stack: Annotated[int, Field(ge=1, le=16), STRUCTURAL] = 3
    """pictures of an observation, the newest last; the first of an episode stands in for those before it"""
    repeat: Annotated[int, Field(ge=1, le=16), STRUCTURAL] = 1
    """steps of the environment that an action is held for; their rewards are summed, and steps are counted as those of
    the agent everywhere but in env.max_episode_steps"""
    draw: Annotated[Literal["last", "each"], STRUCTURAL] = "last"
    """which of the repeated steps are drawn: the last, or each, side by side as channels of one picture"""
    camera: Annotated[int | str | None, STRUCTURAL] = None
    """number or name of the camera, where the environment has several; left out: its own"""
    source: Annotated[Literal["scene", "observation"], STRUCTURAL] = "scene"
    """what is seen: the scene, which the environment draws, or the image that is (a part of) its observation"""
    proprioception: Annotated[bool, STRUCTURAL] = False
    """the numbers that the environment observes are seen too, beside the newest picture"""


class EncoderConfig(Section):
    """`[algorithm.encoder]`: convolutions in front of actor and critics, for observations that are pictures."""

    kind: Annotated[Literal["drqv2", "ddpg", "small", "strided"], STRUCTURAL] = "drqv2"
    """the convolutions: four of DrQ-v2, three of the DDPG paper, four strided ones for CPUs, or those of MR.Q"""
    shared: Annotated[bool, STRUCTURAL] = True
    """one for actor and critics, learned by the critics' loss alone; false: each has its own"""
    features: Annotated[int, Field(ge=0, le=65536), STRUCTURAL] = 50
    """width of the trunks behind it, of actor and critics each: a layer, its normalisation and tanh; 0: none"""
    channels: Annotated[Width, STRUCTURAL] = 32
    """maps of each convolution"""
    kernel: Annotated[int, Field(ge=1, le=9), STRUCTURAL] = 3
    """height and width of each"""
    learning_rate: Annotated[Rate | None, TRACED, LEARNING] = None
    """of Adam, where it is shared; left out: that of the critics"""
    shift: Annotated[int, Field(ge=0, le=32), LEARNING] = 4
    """pixels by which pictures are shifted at random, the same for all of an observation; 0: they are not"""
    interpolation: Annotated[Literal["none", "bilinear"], LEARNING] = "none"
    """how they are shifted: as bytes, by whole pixels, or sampled as published, which comes to the same"""
    target_copies: Annotated[int, Field(ge=1, le=16), LEARNING] = 1
    """shifts of a successor whose targets are averaged, K of DrQ"""
    online_copies: Annotated[int, Field(ge=1, le=16), LEARNING] = 1
    """shifts of an observation whose losses are summed, M of DrQ"""
