"""The store of checkpoints: written whole or not at all, read only if every byte is the one that was written.

    checkpoints/
        00000007-step-40000/            a checkpoint: sequence number and step
            arrays.safetensors          all that is small
            manifest.json               what belongs to it: sizes, hashes, forms, facts; its own hash
        rows/00000003-0-10000.safetensors   rows of the replay, written once, shared by the checkpoints that need them
        best/step-30000.safetensors     weights of the evaluation that was best when a checkpoint was written
        corrupt-.../                    what did not verify and was set aside

A save writes new rows, then a staging folder with the manifest last, each file synced; renames the folder; reads back
what it wrote; and only then removes older checkpoints.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ddpg_jax.errors import StorageError
from ddpg_jax.runs import filesystem as filesystem
from ddpg_jax.runs.arrays import Leaf, leaf_of, parse, serialize
from ddpg_jax.runs.checkpoints.checkpoint import Checkpoint, CheckpointInfo
from ddpg_jax.runs.checkpoints.integrity import UnreadableError, check, read, read_manifest
from ddpg_jax.runs.checkpoints.manifest import FORMAT, Manifest, Segment, canonical
from ddpg_jax.runs.checkpoints.rows import Rows, mend_rows, reusable, row_form, rows_of, write_rows

_FOLDER = re.compile(r"(\d{8,})-step-(\d+)")
_STAGING = ".staging-"

BEST = "best"
"""The folder of the weights that were best; a checkpoint's fact `best_step` keeps a file of it."""


class CheckpointStore:
    """The checkpoints of a run.

    Args:
      folder: where they are; made with the first save.
      keep: how many of the newest are kept, beside the one with the best score.
      guard: called before anything is written; it raises where the folder is not ours any more.
      warn: is told of rows that were damaged and could be mended.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep: int = 2,
        guard: Callable[[], None] = lambda: None,
        warn: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._folder, self._rows, self._keep = folder, folder / "rows", max(2, keep)
        self._guard, self._warn, self._turn = guard, warn, 0
        self._row_leaves: list[Leaf] = []
        self._segments: list[Segment] = []  # what the next save may refer to
        self._clean = False
        self._known: dict[str, Manifest] = {}  # of what this object has written or verified

    def save(self, checkpoint: Checkpoint) -> CheckpointInfo:
        """Writes a checkpoint, reads it back, and removes those that are not kept any more.

        Of the rows that were written before, one file is read again each time: what has been damaged since, or is
        gone, is written anew while the rows are still at hand.

        Raises:
          StorageError: it could not be written; what was there before is there.
        """
        self._guard()
        try:
            filesystem.make_folder(self._rows)
            if not self._clean:
                self._remove_leftovers()
            sequence = 1 + max((number for number, _ in self._every()), default=0)
            manifest = self._write_checkpoint(checkpoint, sequence)
        except OSError as error:
            raise StorageError(f"{self._folder}: the checkpoint after {checkpoint.step} steps: {error}") from error
        self._row_leaves, self._segments = manifest.row_leaves, manifest.segments
        self._known[f"{sequence:08d}-step-{checkpoint.step}"] = manifest
        try:
            self._prune()
        except (OSError, StorageError):  # what could not be removed now is removed next time
            self._clean = False
        return self._found(manifest)

    def newest(
        self, accept: Callable[[CheckpointInfo], None] = lambda found: None
    ) -> tuple[CheckpointInfo | None, list[str]]:
        """The newest checkpoint that is whole; broken ones on the way to it are set aside.

        So are older ones without a manifest that can be understood, as nothing could be pruned beside them.

        Args:
          accept: raises `StorageError` where a checkpoint is of no use, as what lies beside it is broken.

        Returns:
          The checkpoint, or None where there has never been one, and a line for each that was set aside.

        Raises:
          UnreadableError: one may be whole, but cannot be read now; nothing is set aside.
          StorageError: there are some, and none is whole; nothing is set aside.
        """
        broken: list[tuple[str, int, str]] = []
        whole = None
        for _, name in reversed(self._every()):
            try:
                if whole is None:
                    found = self._verify(name)
                    accept(found)
                    whole = found
                else:
                    read_manifest(self._folder / name)
            except UnreadableError:
                raise
            except StorageError as error:
                step = _FOLDER.fullmatch(name)
                broken.append((name, int(step[2]) if step else 0, str(error)))
        if broken and whole is None:
            raise StorageError(
                f"{self._folder} holds {len(broken)} checkpoints, but none that a run can go on from: {broken[0][2]}; "
                f"nothing was changed. The networks alone may be left: ddpg-jax resume {self._folder.parent} --level "
                "weights begins again with them; train --overwrite begins anew"
            )
        back_to = 0 if whole is None else whole.step  # steps that are done again
        return whole, [self._set_aside(name, step, why, back_to) for name, step, why in broken]

    def at(self, step: int) -> CheckpointInfo:
        """The newest checkpoint after so many steps, if it is whole.

        Raises:
          StorageError: there is none, or it is broken.
        """
        there = [(name, _FOLDER.fullmatch(name)) for _, name in self._every()]
        steps = {int(match[2]): name for name, match in there if match}
        if step not in steps:
            raise StorageError(
                f"{self._folder} holds no checkpoint after {step} steps; there are {sorted(steps) or 'none'}"
            )
        return self._verify(steps[step])

    def newest_arrays(self) -> tuple[Path, Checkpoint] | None:
        """The newest checkpoint whose arrays are whole, whatever became of its rows; nothing is changed.

        Returns:
          Its folder, and what it holds but for the rows; None: there is none.

        Raises:
          UnreadableError: one may be whole, but cannot be read now.
        """
        for _, name in reversed(self._every()):
            try:
                manifest = read_manifest(self._folder / name)
                path = self._folder / name / "arrays.safetensors"
                arrays = parse(read(path, manifest.bytes, manifest.sha256), manifest.leaves, path)
            except UnreadableError:
                raise
            except StorageError:
                continue
            rows = Rows(manifest.stop, manifest.stop, lambda a, b: {})
            return path.parent, Checkpoint(manifest.step, arrays, rows, manifest.facts, manifest.score)
        return None

    def examine(self) -> list[tuple[str, CheckpointInfo | str]]:
        """Every checkpoint by the name of its folder: whole, or what is wrong with it. Nothing is changed."""

        def look(name: str) -> CheckpointInfo | str:
            try:
                return self._verify(name)
            except StorageError as error:
                return str(error)

        examined = [(name, look(name)) for _, name in self._every()]
        return [(name, each) for name, each in examined if (self._folder / name).is_dir()]  # but for those pruned since

    def load(self, found: CheckpointInfo) -> Checkpoint:
        """Reads a checkpoint; rows are read when they are asked for. The next save adds to its rows.

        Raises:
          StorageError: it is not what was written; also from `rows.read`.
        """
        manifest = read_manifest(found.path)
        content = read(found.path / "arrays.safetensors", manifest.bytes, manifest.sha256)
        arrays = parse(content, manifest.leaves, found.path)
        self._row_leaves, self._segments = manifest.row_leaves, manifest.segments
        rows = rows_of(manifest, self._rows)
        return Checkpoint(manifest.step, arrays, rows, manifest.facts, manifest.score)

    def forget_rows(self) -> None:
        """Lets the next save write all rows anew, as some that were written have changed."""
        self._segments = []

    def _every(self) -> list[tuple[int, str]]:
        """Sequence numbers and names of the checkpoints, in order, whole or not."""
        matches = [_FOLDER.fullmatch(name) for name in filesystem.names(self._folder)]
        return sorted((int(match[1]), match[0]) for match in matches if match)

    def _write_checkpoint(self, checkpoint: Checkpoint, sequence: int) -> Manifest:
        """Writes everything and gives it its name; what had been written is removed if that fails."""
        staging = self._folder / f"{_STAGING}{sequence:08d}"
        name = f"{sequence:08d}-step-{checkpoint.step}"
        new: list[Segment] = []
        committed = False
        try:
            row_leaves = row_form(checkpoint.rows)
            reused = reusable(checkpoint.rows, row_leaves, self._segments, self._row_leaves)
            reused = self._mend(reused, checkpoint.rows, row_leaves)
            start = reused[-1].stop if reused else checkpoint.rows.first
            write_rows(self._rows, checkpoint.rows, row_leaves, start, sequence, new)
            filesystem.make_folder(staging)
            leaves = [leaf_of(*item) for item in sorted(checkpoint.arrays.items())]
            parts = serialize(leaves, [checkpoint.arrays[leaf.name] for leaf in leaves])
            size, sha256 = filesystem.write_file(staging / "arrays.safetensors", parts)
            manifest = Manifest(
                format=FORMAT,
                step=checkpoint.step,
                sequence=sequence,
                score=checkpoint.score,
                facts=checkpoint.facts,
                leaves=leaves,
                bytes=size,
                sha256=sha256,
                first=checkpoint.rows.first,
                stop=checkpoint.rows.stop,
                row_leaves=row_leaves,
                segments=[*reused, *new],
                own_sha256="",
            )
            filesystem.write_file(staging / "manifest.json", [canonical(manifest)])
            filesystem.sync_folder(staging)
            filesystem.rename(staging, self._folder / name)
            committed = True
            filesystem.sync_folder(self._folder)
        finally:
            if not committed:
                with suppress(OSError):
                    filesystem.remove(staging)
                    for each in new:
                        filesystem.remove(self._rows / each.name)
        self._read_back(name, new)
        return manifest

    def _mend(self, reused: list[Segment], rows: Rows, leaves: list[Leaf]) -> list[Segment]:
        """Segments that are on the disk still: all that are missing, and one in turn that is read, are looked at."""
        self._turn = self._turn + 1 if self._turn + 1 < len(reused) else 0
        for i, each in enumerate(reused):
            path = self._rows / each.name
            try:
                if i == self._turn:
                    check(path, each.bytes, each.sha256)
                elif filesystem.file_size(path) != each.bytes:
                    raise StorageError(f"{path} is broken: it is not of its size")
            except UnreadableError:
                continue
            except (OSError, StorageError):
                if not mend_rows(path, rows, leaves, each):
                    self._warn(f"warning: {path} was damaged or lost; all rows are written anew")
                    return []
                self._warn(f"warning: {path} was damaged or lost, and is written anew")
        return reused

    def _read_back(self, name: str, new: list[Segment]) -> None:
        """Verifies what has just been written, and sets it aside if that is not what the disk gives back."""
        try:
            manifest = read_manifest(self._folder / name)
            check(self._folder / name / "arrays.safetensors", manifest.bytes, manifest.sha256)
            for each in new:
                check(self._rows / each.name, each.bytes, each.sha256)
        except StorageError:
            with suppress(OSError):
                filesystem.rename(self._folder / name, self._folder / f"corrupt-{name}")
            raise

    def _verify(self, name: str) -> CheckpointInfo:
        """A checkpoint of which every byte was read and is right."""
        manifest = read_manifest(self._folder / name)
        check(self._folder / name / "arrays.safetensors", manifest.bytes, manifest.sha256)
        for each in manifest.segments:
            check(self._rows / each.name, each.bytes, each.sha256)
        return self._found(manifest)

    def _found(self, manifest: Manifest) -> CheckpointInfo:
        name = f"{manifest.sequence:08d}-step-{manifest.step}"
        size = manifest.bytes + sum(each.bytes for each in manifest.segments)
        return CheckpointInfo(
            self._folder / name, manifest.step, manifest.sequence, manifest.score, manifest.facts, size
        )

    def _set_aside(self, name: str, step: int, why: str, back_to: int) -> str:
        """Renames a broken checkpoint and says so."""
        try:
            filesystem.rename(self._folder / name, self._folder / f"corrupt-{name}")
            where = f"it is set aside as corrupt-{name}"
        except OSError as error:
            where = f"it could not be set aside: {error}"
        return f"warning: checkpoint {name} is broken; {where}; {max(0, step - back_to)} steps are lost ({why})"

    def _remove_leftovers(self) -> None:
        """Removes what a save, or a removal, left behind that was cut off."""
        for name in filesystem.names(self._folder):
            if name.startswith(_STAGING):
                filesystem.remove(self._folder / name)
        self._clean = True

    def _prune(self) -> None:
        """Removes the checkpoints that are not kept, and the rows that none refers to.

        Raises:
          StorageError: a manifest cannot be read, so that nothing is known to be needless; `newest` sees to that.
        """
        names = [name for _, name in self._every()]
        self._known = {name: self._known.get(name) or read_manifest(self._folder / name) for name in names}
        known = list(self._known.items())
        scored = [(each.score, each.sequence, name) for name, each in known if each.score is not None]
        kept = {name for name, _ in known[-self._keep :]} | ({max(scored)[2]} if scored else set[str]())
        for name, _ in known:
            if name not in kept:
                filesystem.rename(self._folder / name, self._folder / f"{_STAGING}{name}")
                filesystem.remove(self._folder / f"{_STAGING}{name}")
        needed = {segment.name for name, each in known if name in kept for segment in each.segments}
        needed |= {f"step-{each.facts.get('best_step')}.safetensors" for name, each in known if name in kept}
        for folder in (self._rows, self._folder / BEST):
            for name in filesystem.names(folder):
                if name not in needed:
                    filesystem.remove(folder / name)
