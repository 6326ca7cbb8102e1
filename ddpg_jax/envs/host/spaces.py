"""Observations as environments have them, and the one vector that the agent sees of them.

Boxes of any shape, and dictionaries and tuples of them, nested or not, become a vector in the order of the space, each
array in C order: as gymnasium flattens them. gymnasium sorts the keys of a plain dictionary when the space is made. The
order is kept as a layout, which says by name where each array lies.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any, cast

import gymnasium
import numpy as np

from ddpg_jax.errors import EnvironmentFault
from ddpg_jax.types import EnvSpec, HostArray, ObsPart

_LEAVE_OUT = "leave it out with gymnasium.wrappers.FilterObservation, or make it a Box"


def observed(space: gymnasium.Space[Any]) -> tuple[tuple[int, ...], str, tuple[ObsPart, ...]]:
    """How the observations of a space are seen and stored.

    Images, which are of bytes and have three axes or more, stay as they are.

    Returns:
      `obs_shape`, `obs_dtype` and `layout` of an `EnvSpec`.

    Raises:
      EnvironmentFault: a part of it is not a Box, or is an image beside others, or it is empty.
    """
    if isinstance(space, gymnasium.spaces.Box):
        if _is_image(space):
            return space.shape, "uint8", ()
        if len(space.shape) == 1:
            return space.shape, "float32", ()
    elif not isinstance(space, (gymnasium.spaces.Dict, gymnasium.spaces.Tuple)):
        raise EnvironmentFault(
            f"observation space {space} is not a Box, nor a Dict or Tuple of them: flatten it with "
            "gymnasium.wrappers.FlattenObservation"
        )
    images, parts = divided(space)
    if images:
        raise EnvironmentFault(
            f"part {images[0].name!r} of the observation is an image, beside numbers: to see both give "
            '[env.pixels] with source = "observation" and proprioception = true; or leave it out with '
            "gymnasium.wrappers.FilterObservation"
        )
    if not parts or not parts[-1].stop:
        raise EnvironmentFault(f"observation space {space} holds no number: there is nothing to learn from")
    return (parts[-1].stop,), "float32", parts


def divided(space: gymnasium.Space[Any]) -> tuple[tuple[ObsPart, ...], tuple[ObsPart, ...]]:
    """The images of an observation, and its numbers as they lie in one vector.

    Raises:
      EnvironmentFault: a part of it is not a Box.
    """
    images: list[ObsPart] = []
    parts: list[ObsPart] = []
    for path, box in _leaves(space, ()):
        start = parts[-1].stop if parts else 0
        part = ObsPart(path, start, start + prod(box.shape), box.shape, np.dtype(box.dtype).name)
        (images if _is_image(box) else parts).append(part)
    return tuple(images), tuple(parts)


def value_of(observation: Any, part: ObsPart) -> HostArray:
    """A part of an observation as the environment gives it."""
    return np.asarray(_at(observation, part.path))


def flatten(value: Any, layout: Sequence[ObsPart]) -> HostArray | None:
    """The vectors of observations as an environment gives them.

    Args:
      value: an observation, or one whose arrays all have the same further axes in front.
      layout: of the space, not empty.

    Returns:
      `[..., *O]`, of a dtype that holds all of them; None: it is no such observation.
    """
    columns: list[HostArray] = []
    leads: set[tuple[int, ...]] = set()
    if not _has_keys(value, {part.path for part in layout}):
        return None
    for part in layout:
        array = _number_array(_at(value, part.path))
        cut = -1 if array is None else array.ndim - len(part.shape)
        if array is None or cut < 0 or array.shape[cut:] != part.shape:
            return None
        leads.add(array.shape[:cut])
        columns.append(array.reshape(*array.shape[:cut], part.stop - part.start))
    return np.concatenate(columns, -1) if len(leads) == 1 else None


def as_vectors(value: Any, spec: EnvSpec) -> HostArray:
    """Observations as the agent sees them, `[*O]` or `[E, *O]`; given so, or as the environment gives them.

    What is neither comes back as an array of some other shape, or of none.
    """
    if spec.layout and (flat := flatten(value, spec.layout)) is not None:
        return flat.astype(spec.obs_dtype)
    return np.zeros(()) if isinstance(value, Mapping) else np.asarray(value, spec.obs_dtype)


def in_words(layout: Sequence[ObsPart]) -> str:
    """What an observation must be, for messages."""
    arrays = [f"{part.name} {list(part.shape)}".lstrip() for part in layout]
    return f"an array of shape {layout[0].shape}" if layout[0].path == () else f"arrays {', '.join(arrays)}"


def component_name(layout: Sequence[ObsPart], i: int) -> str:
    """What a component of the vector is called in messages: its number, and the array that it is of."""
    part = next((part for part in layout if part.start <= i < part.stop and part.path), None)
    return str(i) if part is None else f"{i} ({part.name})"


def shown(value: Any) -> str:
    """What came as an observation, for messages."""
    if isinstance(value, Mapping):
        parts = [f"{name} {shown(each)}" for name, each in cast("Mapping[Any, Any]", value).items()]
        return f"{type(value).__name__} of {', '.join(parts) or 'nothing'}"
    given = getattr(value, "dtype", None)
    return type(value).__name__ if given is None else f"shape {value.shape} and dtype {given}"


def _leaves(space: gymnasium.Space[Any], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The boxes of a space with their keys, in its order."""
    name = ".".join(path)
    if isinstance(space, gymnasium.spaces.Dict):
        inner = list(space.spaces.items())
    elif isinstance(space, gymnasium.spaces.Tuple):
        inner = [(str(i), each) for i, each in enumerate(space.spaces)]
    elif isinstance(space, gymnasium.spaces.Box):
        yield path, space
        return
    else:
        raise EnvironmentFault(f"part {name!r} of the observation is {space}, which is not a Box: {_LEAVE_OUT}")
    for key, each in inner:
        yield from _leaves(each, (*path, str(key)))


def _is_image(space: gymnasium.Space[Any]) -> bool:
    return space.dtype == np.uint8 and len(space.shape or ()) >= 3


def _at(value: Any, path: Sequence[str]) -> Any:
    for key in path:
        value = value[key] if isinstance(value, Mapping) else value[int(key)]
    return value


def _has_keys(value: Any, paths: set[tuple[str, ...]]) -> bool:
    """Whether an observation is divided as the layout says, nothing missing and nothing more."""
    if paths == {()}:
        return not isinstance(value, Mapping)
    keys = {path[0] for path in paths if path}
    if isinstance(value, Mapping):
        found = {str(key) for key in cast("Mapping[Any, Any]", value)}
    elif isinstance(value, (tuple, list)):
        found = {str(i) for i in range(len(cast("Sequence[Any]", value)))}
    else:
        return False
    return found == keys and all(
        _has_keys(_at(value, (key,)), {path[1:] for path in paths if path[0] == key}) for key in keys
    )


def _number_array(value: Any) -> HostArray | None:
    try:
        array = np.asarray(value)
    except (ValueError, TypeError):  # lists of unequal lengths
        return None
    return array if array.dtype.kind in "fiub" else None
