"""A policy of a run as files that other programs run, in the units of the environment.

All is computed, and each form compared with `load_policy`, before the first file is written.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import numpy as np

from ddpg_jax.config.wording import option
from ddpg_jax.errors import ConfigError, NotFiniteError, StorageError
from ddpg_jax.runs import filesystem as filesystem
from ddpg_jax.runs.arrays import seal
from ddpg_jax.runs.directory import RunDirectory
from ddpg_jax.runs.export.card import make_card
from ddpg_jax.runs.export.describe import FORMAT, describe, metadata
from ddpg_jax.runs.export.forms import DEFAULT_FORMS, check_forms
from ddpg_jax.runs.export.golden import ORDINARY, Golden, differences, golden_observations
from ddpg_jax.runs.export.steps import Step, actor_steps
from ddpg_jax.runs.inference import LoadedRun, load_run
from ddpg_jax.runs.policy import seed_policy
from ddpg_jax.runs.pytrees import to_host
from ddpg_jax.runs.weights import stored_part
from ddpg_jax.types import HostArray

if TYPE_CHECKING:
    from ddpg_jax.types import Array

_FILES = {
    "safetensors": "policy.safetensors",
    "numpy": "numpy_policy.py",
    "stablehlo": "policy.stablehlo",
    "onnx": "policy.onnx",
}
_ALWAYS = ("spec.json", "golden.npz", "README.md")
_OTHER_FUNCTION = 1e-4
"""In units of half the action range; where a quarter of the ordinary actions differ by more from `load_policy`, a form
is another function."""


class Source(NamedTuple):
    """The policy of one seed, in all that the forms are made of.

    Attributes:
      run: with that seed alone.
      arrays: that the policy reads, by their stored names.
      golden: observations and actions.
      steps: of its network; None where no form needs them.
      document: what `spec.json` says.
    """

    run: LoadedRun
    arrays: dict[str, HostArray]
    golden: Golden
    steps: list[Step] | None
    document: dict[str, Any]

    def policy(self, obs: Array) -> Array:
        """Greedy actions in [-1, 1], `[N, *O] -> [N, A]`; it can be traced."""
        return self.run.policy(self.run.state, obs[None]).squeeze(0)  # pyright: ignore[reportArgumentType]  traced


def export_policy(
    run_dir: str | Path,
    seed: int = 0,
    *,
    which: Literal["final", "best"] = "final",
    to: Sequence[str] = DEFAULT_FORMS,
    out: str | Path | None = None,
    overwrite: bool = False,
    **overrides: Any,
) -> list[Path]:
    """Writes the greedy policy of one seed in forms that need neither this package nor, but for StableHLO, jax.

    Args:
      run_dir: directory of a run.
      seed: position in the run's list of seeds; 0 is the first.
      which: "best": as it was at its best evaluation.
      to: "safetensors", "numpy", "stablehlo", "onnx"; a NumPy policy brings its safetensors along.
      out: folder of the files; None: `exported/<run>-seed-<seed>-<which>`.
      overwrite: whether the files of an export that is there are replaced.
      **overrides: as in `load_run`.

    Returns:
      The files.

    Raises:
      ConfigError: a form is unknown, its package is missing, or it cannot hold this network.
      StorageError: the run cannot be read, or a file cannot be written.
      IndexError: the run has no such seed.
      NotFiniteError: the policy's actions are not finite.
    """
    forms = check_forms(to)
    run = load_run(run_dir, which=which, **overrides)
    if not 0 <= seed < len(run.config.seed_list):
        raise IndexError(f"seed={seed}: the run has {len(run.config.seed_list)} seeds, counted from 0")
    return export_run(run, run_dir, seed, which=which, forms=forms, out=out, overwrite=overwrite)


def export_run(
    run: LoadedRun,
    run_dir: str | Path,
    place: int,
    *,
    which: Literal["final", "best"],
    forms: Sequence[str],
    out: str | Path | None,
    overwrite: bool,
) -> list[Path]:
    """As `export_policy`, for a run that was read already, and forms that were checked.

    Raises:
      ConfigError: the agent has a memory.
    """
    if run.memory is not None:
        raise ConfigError("an agent with memory cannot be exported: load_policy gives its policy in Python")
    directory = RunDirectory.open(run_dir)
    name = f"{directory.path.name}-seed-{run.config.seed_list[place]}-{which}"
    folder = Path("exported") / name if out is None else Path(out)
    _check_folder(folder, overwrite)
    source = _read(run, place, which, forms, directory.read_result())
    return _write(folder, make_files(source, forms))


def _check_folder(folder: Path, overwrite: bool) -> None:
    held = {path.name for path in folder.iterdir()} if folder.is_dir() else set[str]()
    strange = held - {*_ALWAYS, *_FILES.values(), "__pycache__"}
    if strange or (held and not overwrite):
        can = " or replace what is there with " + option("overwrite") if not strange else ""
        raise StorageError(
            f"{folder} is not empty, it holds {min(strange or held)}: name another folder by {option('out')}{can}"
        )


def _read(run: LoadedRun, place: int, which: str, forms: Sequence[str], result: dict[str, Any] | None) -> Source:
    policy, seed = seed_policy(run, place), run.config.seed_list[place]
    state = jax.tree.map(lambda x: x[place : place + 1], run.state.for_acting)
    arrays = {name: array[0] for name, array in to_host(stored_part(state)).items() if "/critic/" not in name}
    obs = golden_observations(run.spec, arrays)
    golden = Golden(obs, policy(obs))
    if not np.isfinite(golden.action).all():
        raise NotFiniteError(f"the actions of seed {seed} are not finite: its parameters have diverged")
    try:
        steps = actor_steps(run.config, arrays)
    except ConfigError:
        if {"numpy", "onnx"} & {*forms}:
            raise
        steps = None
    document = describe(run.config, run.spec, seed, which, golden, steps, result)
    return Source(run._replace(state=state), arrays, golden, steps, document)


def make_files(source: Source, forms: Sequence[str]) -> dict[str, bytes]:
    """The content of each file by its name; each form has been compared with the golden actions.

    Raises:
      ConfigError: a form gives other actions.
    """
    files = dict[str, bytes]()
    agreement = dict[str, tuple[float, float]]()
    for form in forms:
        files[_FILES[form]], run = _MAKERS[form](source)
        if run is not None:
            off = differences(source.run.spec, source.golden, run(source.golden.obs))
            usual = np.quantile(off[:ORDINARY], 0.75)
            if not usual < _OTHER_FUNCTION:
                raise ConfigError(f"{form} gives other actions than load_policy, by {usual:.1e} of half the range")
            agreement[form] = float(off[:ORDINARY].max()), float(off.max())
    said = json.dumps(metadata(source.document))
    golden = io.BytesIO()
    np.savez_compressed(golden, metadata=np.array(said), ordinary=np.array(ORDINARY), **source.golden._asdict())
    files["golden.npz"] = golden.getvalue()
    files["spec.json"] = json.dumps(source.document, indent=2).encode() + b"\n"
    files["README.md"] = make_card(source.document, forms, agreement).encode()
    return files


RunFn = Callable[[HostArray], HostArray]


def _safetensors(source: Source) -> tuple[bytes, RunFn | None]:
    text = {**metadata(source.document), "format": FORMAT, "spec": json.dumps(source.document)}
    return b"".join(bytes(part) for part in seal(source.arrays, text)), None


def _numpy(source: Source) -> tuple[bytes, RunFn | None]:
    from ddpg_jax.runs.export import numpy_policy

    arrays = {name: array.astype(np.float64) for name, array in source.arrays.items()}
    return Path(numpy_policy.__file__).read_bytes(), numpy_policy.Policy(source.document, arrays)


def _stablehlo(source: Source) -> tuple[bytes, RunFn | None]:
    from ddpg_jax.runs.export.stablehlo import run_stablehlo, to_stablehlo

    content = to_stablehlo(source.policy, source.run.spec, source.golden.action, metadata(source.document))
    return content, lambda obs: run_stablehlo(content, obs)


def _onnx(source: Source) -> tuple[bytes, RunFn | None]:
    from ddpg_jax.runs.export.onnx import run_onnx, to_onnx

    said = metadata(source.document)
    content = to_onnx(source.steps or [], source.arrays, source.run.spec, source.golden.action, said)
    return content, lambda obs: run_onnx(content, obs)


_MAKERS: dict[str, Callable[[Source], tuple[bytes, RunFn | None]]] = {
    "safetensors": _safetensors,
    "numpy": _numpy,
    "stablehlo": _stablehlo,
    "onnx": _onnx,
}


def _write(folder: Path, files: dict[str, bytes]) -> list[Path]:
    """Writes the files, and removes those of an export before that are none of it."""
    try:
        filesystem.make_folder(folder)
        for name in {*_FILES.values()} - files.keys():
            filesystem.remove(folder / name)
        for name, content in files.items():
            filesystem.replace_file(folder / name, [content])
    except OSError as error:
        raise StorageError(f"{folder} cannot be written: {error}") from error
    return [folder / name for name in files]
