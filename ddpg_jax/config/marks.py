"""What is true of a field beside its type: what a resume does when it differs, and whether it may be traced.

Marks stand at the field, `gamma: Annotated[Fraction, TRACED, LEARNING] = 0.99`, and are read off the models.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from pydantic import BaseModel
from pydantic.fields import FieldInfo


class Effect(Enum):
    """What a changed field does to a run that goes on."""

    HARMLESS = "harmless"
    """the learner goes on to the bit; what is recorded of it may differ"""
    LEARNING = "learning"
    """the learner goes on, but not as the run would have"""
    STRUCTURAL = "structural"
    """what was kept does not fit any more, or is of another task"""


HARMLESS: Final = Effect.HARMLESS
LEARNING: Final = Effect.LEARNING
STRUCTURAL: Final = Effect.STRUCTURAL

TRACED: Final = "traced"
"""Marks a number to the learner that is never structure: it may be traced, and differ from lane to lane.

Where such a number may be left out, leaving it out is structure all the same.
"""


def effect_of(field: FieldInfo) -> Effect | None:
    """The effect that a field is marked with; None: it has none."""
    return next((mark for mark in field.metadata if isinstance(mark, Effect)), None)


def traced_fields(model: type[BaseModel]) -> tuple[str, ...]:
    """The fields of a model that are marked as `TRACED`, in order."""
    return tuple(name for name, field in model.model_fields.items() if TRACED in field.metadata)
