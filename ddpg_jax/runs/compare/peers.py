"""Curves of other programs: CSV files and TensorBoard event directories."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ddpg_jax.errors import ConfigError, StorageError, printable
from ddpg_jax.runs import filesystem as filesystem
from ddpg_jax.runs.compare.evaluations import NEVER, Evaluations

TAGS = ("eval/mean_reward", "evaluation/mean_return")
"""Scalars that are taken for the evaluation where none is named: of stable-baselines3, and ours."""

_MOST_BYTES = 2**28
_EVENTS = "events.out.tfevents.*"


class _Point(NamedTuple):
    seconds: float
    value: float


_Points = dict[str, dict[int, _Point]]
"""By seed and step."""


class Peer(NamedTuple):
    """What `--peer` names.

    Attributes:
      name: of the group.
      task: what was learned; None: the one task that the runs are of.
      path: a CSV file, or a directory of event files.
      tag: which scalar of the event files; None: one of `TAGS`.
    """

    name: str
    task: str | None
    path: Path
    tag: str | None


def parse_peer(text: str) -> Peer:
    """Reads `NAME[@TASK]=FILE[:TAG]`; a colon that belongs to a path that is there begins no tag.

    Raises:
      ConfigError: it is none, or there is no such file.
    """
    name, equals, where = text.partition("=")
    name, _, task = name.partition("@")
    if not (name and equals and where):
        raise ConfigError(f"--peer {printable(text)}: write NAME=FILE, NAME=DIRECTORY:TAG or NAME@TASK=FILE")
    ends = [i for i, letter in enumerate(where) if letter == ":"]
    for end in (len(where), *reversed(ends)):
        if Path(where[:end]).exists():
            return Peer(name, task or None, Path(where[:end]), where[end + 1 :] or None)
    raise ConfigError(f"--peer {printable(text)}: there is no {printable(where)}")


def read_peer(peer: Peer, task: str) -> Evaluations:
    """Reads the curves of a peer.

    A CSV file has a first line of names, of which `step` and `return` are needed, and `seed` where it holds several;
    `seconds` is taken, other columns are not. A directory of event files is one seed, one of such directories has a
    seed in each. A return that is not finite is that of a seed that diverged.

    Args:
      peer: what is read.
      task: what it learned.

    Raises:
      StorageError: it cannot be read, or holds no such curve.
      ConfigError: the scalar is not named and cannot be guessed, or a tag is given for a CSV file.
    """
    if peer.path.is_dir():
        return _evaluations(peer.path, task, _read_events(peer.path, peer.tag))
    if peer.tag is not None:
        raise ConfigError(f"--peer {printable(peer.path)}:{printable(peer.tag)}: a CSV file has no tags; leave it out")
    return _evaluations(peer.path, task, _read_csv(peer.path))


def _evaluations(path: Path, task: str, points: _Points) -> Evaluations:
    """The curves of all seeds at the steps that all of them have."""
    common = set.intersection(*(set(each) for each in points.values()))
    if not common:
        shown = "; ".join(f"{printable(seed)}: {', '.join(map(str, list(each)[:3]))}" for seed, each in points.items())
        raise StorageError(
            f"{printable(path)}: its seeds share no step ({shown[:200]}); nothing is interpolated here: write them at "
            "the same steps"
        )
    steps = sorted(common)
    returns = np.array([[each[step].value for each in points.values()] for step in steps])
    lost = ~np.isfinite(returns)
    first = np.where(lost.any(0), np.array(steps)[lost.argmax(0)], NEVER)
    seconds = np.array([np.mean([each[step].seconds for each in points.values()]) for step in steps])
    return Evaluations(str(path), task, np.array(steps, np.int64), tuple(points), returns, first, seconds)


def _read_csv(path: Path) -> _Points:
    try:
        text = filesystem.read_whole(path, _MOST_BYTES).decode("utf-8-sig")
        rows = list(csv.reader(text.splitlines()))
    except OSError as error:
        raise StorageError(f"{printable(path)} cannot be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise StorageError(f"{printable(path)} is no CSV file: {printable(error)}") from error
    names = [name.strip().lower() for name in rows[0]] if rows else []
    if not {"step", "return"} <= set(names) or len(rows) < 2:
        raise StorageError(
            f"{printable(path)}: its first line must name the columns step and return, and seed where there are "
            f"several seeds, but is {printable(','.join(names))[:100]!r}" + (", and no row follows" * (len(rows) == 1))
        )
    points: _Points = {}
    for number, cells in enumerate(rows[1:], 2):
        if cells:
            seed, step, point = _csv_row(dict(zip(names, cells, strict=False)), f"{printable(path)}, line {number}")
            if points.setdefault(seed, {}).setdefault(step, point) is not point:
                raise StorageError(
                    f"{printable(path)}, line {number}: step {step} of seed {printable(seed)} is there twice; is a "
                    "column seed missing?"
                )
    return points


def _csv_row(cells: dict[str, str], where: str) -> tuple[str, int, _Point]:
    try:
        step = float(cells["step"])
        value = float(cells["return"])
        seconds = float(cells.get("seconds") or "nan")
    except (KeyError, ValueError) as error:
        raise StorageError(f"{where}: step, return and seconds must be numbers: {printable(error)[:100]}") from error
    if not (step.is_integer() and 0 <= step < 2**53):
        raise StorageError(f"{where}: step {step} is not a whole number")
    return cells.get("seed", "0").strip(), int(step), _Point(seconds, value)


def _read_events(path: Path, tag: str | None) -> _Points:
    folders = [path] if [*path.glob(_EVENTS)] else sorted({file.parent for file in path.glob(f"*/{_EVENTS}")})
    if not folders:
        raise StorageError(f"{printable(path)} holds no event files of TensorBoard, nor do the folders in it")
    points: _Points = {}
    for folder in folders:
        scalars = _scalars(sorted(folder.glob(_EVENTS)))
        chosen = [tag] if tag is not None else [known for known in TAGS if known in scalars][:1]
        if not chosen or chosen[0] not in scalars:
            there = ", ".join(printable(each) for each in sorted(scalars)) or "none"
            wanted = f"no scalar {printable(tag)!r}" if tag else "no scalar that is known as an evaluation's return"
            raise ConfigError(f"{printable(folder)} holds {wanted}; name one, as FILE:TAG; there are: {there[:400]}")
        points[folder.name] = scalars[chosen[0]]
    return points


def _scalars(files: Sequence[Path]) -> dict[str, dict[int, _Point]]:
    """Every scalar in the event files of one seed, by tag and step; what a restart purges is left out."""
    scalars: dict[str, dict[int, _Point]] = {}
    began = math.nan
    for event in _events(files):
        began = event.wall_time if math.isnan(began) else began
        if event.HasField("session_log") and event.session_log.status == event.session_log.START:
            for points in scalars.values():
                for step in [step for step in points if step >= event.step]:
                    del points[step]
        for value in event.summary.value if event.HasField("summary") else ():
            if (number := _number(value)) is not None:
                point = _Point(event.wall_time - began, number)
                scalars.setdefault(value.tag, {})[event.step] = point
    return scalars


def _events(files: Sequence[Path]) -> Iterable[Any]:
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    for file in files:
        try:
            yield from EventFileLoader(str(file)).Load()
        except (OSError, ValueError) as error:
            raise StorageError(f"{printable(file)} cannot be read: {printable(error)[:200]}") from error


def _number(value: Any) -> float | None:
    """The number of a summary, which the loader has made a tensor of; None: it holds something else."""
    if not value.HasField("tensor"):
        return None
    from tensorboard.util.tensor_util import make_ndarray

    array = make_ndarray(value.tensor)
    return float(array.item()) if array.size == 1 and array.dtype.kind in "fiu" else None
