"""Takes each guard out, one at a time, and sees that a test fails: by hand, not with the suite.

    python tests/mutants.py [--jobs 2] [WORD ...]

Each mutant is a copy of the package in which one piece of text is replaced. A mutant that all its tests let live is a
guard that nothing proves; the exit code counts these. WORDs choose the mutants whose names hold one of them.
"""

# ruff: noqa: E501  pieces of text are not divided

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("ddpg_jax", "tests", "configs", "docs", "benchmarks", "pyproject.toml", "README.md")


class Mutant(NamedTuple):
    """A guard that is taken out: its name, the file, what is replaced by what, and the tests that shall notice."""

    name: str
    path: str
    old: str
    new: str
    tests: str


UPDATE, LANES, WORKERS = "agents/policy_gradient.py", "envs/lanes.py", "envs/workers.py"
ALARM, OF_ALARM = "envs/alarm.py", "tests/envs/test_alarm.py"
OPTIMIZERS, OF_OPTIMIZERS = "agents/optimizers.py", "tests/agents/test_optimizers.py"
STORE, MANIFEST, FILES, DIRECTORY = "runs/checkpoint.py", "runs/manifest.py", "runs/files.py", "runs/directory.py"
SEGMENTS, VERIFIED = "runs/segments.py", "runs/verified.py"
METRICS, SAVER, RECORD = "runs/metrics.py", "runs/saver.py", "runs/record.py"
GUARDS, RESUME, CHECKPOINT = "tests/test_guards.py", "tests/test_resume_run.py", "tests/runs/test_checkpoint.py"
OF_LANES, OF_WORKERS, OF_SPACES = (
    "tests/envs/test_lanes.py",
    "tests/envs/test_workers.py",
    "tests/envs/test_registry.py",
)
OF_SWEEP = "tests/test_sweep.py"
OF_DIRECTORY, OF_METRICS = "tests/runs/test_directory.py", "tests/runs/test_metrics.py"

MUTANTS = (
    # the update
    Mutant("update: sizes are looked at", UPDATE, "all_finite(*sizes, *numbers)", "all_finite(*numbers)", GUARDS),
    Mutant("update: numbers are looked at", UPDATE, "all_finite(*sizes, *numbers)", "all_finite(*sizes)", GUARDS),
    Mutant(
        "update: moments are looked at",
        UPDATE,
        "global_norm(d_encoder), global_norm(trace.moments))",
        "global_norm(d_encoder))",
        GUARDS,
    ),
    Mutant("update: a seed is frozen", UPDATE, "tried & ~is_frozen(state, max_rejected)", "tried & True", GUARDS),
    Mutant(
        "update: a frozen seed is not reset",
        UPDATE,
        "select(is_frozen(state, max_rejected), state, new)",
        "new",
        GUARDS,
    ),
    Mutant(
        "update: no actor step after a bad batch", UPDATE, ", state.rejected[_CRITIC] == 0", ", jnp.bool_(True)", GUARDS
    ),
    Mutant(
        "update: bad errors ask for no priority",
        UPDATE,
        "harmless(td_error.reshape(batches.weight.shape))",
        "td_error.reshape(batches.weight.shape)",
        GUARDS,
    ),
    Mutant(
        "update: metrics of what was rejected do not count",
        UPDATE,
        "jnp.where(rejected, 0.0, m.reshape(-1))",
        "m.reshape(-1)",
        GUARDS,
    ),
    Mutant(
        "optimizers: any is held",
        OPTIMIZERS,
        "return step, select(applied, new, state)",
        "return step, new",
        OF_OPTIMIZERS,
    ),
    Mutant(
        "optimizers: Adam's first moments are held",
        OPTIMIZERS,
        "mu = select(applied, optax.tree.update_moment(updates, state.mu, b1, 1), state.mu)",
        "mu = optax.tree.update_moment(updates, state.mu, b1, 1)",
        OF_OPTIMIZERS,
    ),
    Mutant(
        "optimizers: Adam's count is held",
        OPTIMIZERS,
        "count = select(applied, optax.safe_increment(state.count), state.count)",
        "count = optax.safe_increment(state.count)",
        OF_OPTIMIZERS,
    ),
    Mutant(
        "optimizers: the rate's count is held",
        "parts.py",
        "held(optax.scale_by_learning_rate(_scheduled(config, rate, max(1, steps))))",
        "optax.scale_by_learning_rate(_scheduled(config, rate, max(1, steps)))",
        OF_OPTIMIZERS,
    ),
    Mutant(
        "optimizers: Adam's second moments are held",
        OPTIMIZERS,
        "nu = select(applied, optax.tree.update_moment(updates, state.nu, b2, 2), state.nu)",
        "nu = optax.tree.update_moment(updates, state.nu, b2, 2)",
        OF_OPTIMIZERS,
    ),
    Mutant("run: a frozen seed is marked", RECORD, "frozen & ~self._diverged)", "frozen & False)", GUARDS),
    Mutant("run: ends where all seeds diverge", RECORD, "if self._diverged.all():", "if False:", GUARDS),
    Mutant(
        "run: a bundle's failure is survived",
        RECORD,
        "except OSError as error:\n                how",
        "except ZeroDivisionError as error:\n                how",
        GUARDS,
    ),
    # environments
    Mutant("lanes: rewards are finite", LANES, "np.isfinite(self._reward).all() and ", "", OF_LANES),
    Mutant("lanes: observations are finite", LANES, " and np.isfinite(self._next_obs).all()", "", OF_LANES),
    Mutant(
        "lanes: first observations are finite",
        LANES,
        "if not np.isfinite(self._obs[lane]).all():",
        "if False:",
        OF_LANES,
    ),
    Mutant("lanes: shapes", LANES, "if not fits or obs.shape != self.spec.obs_shape:", "if not fits:", OF_LANES),
    Mutant("lanes: dtypes", LANES, "if not fits or obs.shape", "if obs.shape", OF_LANES),
    Mutant("lanes: an end is a bool", LANES, "if not isinstance(value, (bool, np.bool_)):", "if False:", OF_LANES),
    Mutant("lanes: a reward is a number", LANES, "if isinstance(value, (str, bytes)):", "if False:", OF_LANES),
    Mutant(
        "lanes: what raises is named",
        LANES,
        "except Exception as error:\n            raise EnvironmentFault(self._where(lane, action",
        "except ZeroDivisionError as error:\n            raise EnvironmentFault(self._where(lane, action",
        OF_LANES,
    ),
    Mutant(
        "lanes: a reset that raises is named",
        LANES,
        "except Exception as error:\n            raise EnvironmentFault(self._where(lane, None",
        "except ZeroDivisionError as error:\n            raise EnvironmentFault(self._where(lane, None",
        OF_LANES,
    ),
    Mutant("lanes: actions are finite", LANES, "if not np.isfinite(action).all():", "if False:", OF_LANES),
    Mutant(
        "lanes: actions stay inside",
        LANES,
        "np.minimum(np.maximum(low * (1.0 - upper) + high * upper, low), high)",
        "low * (1.0 - upper) + high * upper",
        OF_LANES,
    ),
    Mutant(
        "lanes: reports are copies",
        LANES,
        "return values.reshape(*self._shape, *values.shape[1:]).copy()",
        "return values.reshape(*self._shape, *values.shape[1:])",
        OF_LANES,
    ),
    Mutant(
        "lanes: a time limit keeps the last observation",
        LANES,
        "report = report._replace(obs=self._shaped(self._obs))",
        "report = report._replace(obs=self._shaped(self._obs), next_obs=self._shaped(self._obs))",
        OF_LANES,
    ),
    Mutant(
        "alarm: bounds a step",
        LANES,
        "self._alarm:\n                obs, reward",
        "Alarm(2):\n                obs, reward",
        OF_ALARM,
    ),
    Mutant(
        "alarm: bounds a reset",
        LANES,
        "self._alarm:\n                obs, _ =",
        "Alarm(2):\n                obs, _ =",
        OF_ALARM,
    ),
    Mutant("alarm: rings again", ALARM, "self._seconds, self._seconds)", "self._seconds, self._seconds + 2)", OF_ALARM),
    Mutant("alarm: ends with the call", ALARM, "signal.setitimer(signal.ITIMER_REAL, 0.0)", "pass", OF_ALARM),
    Mutant("alarm: is not heard by its own frames", ALARM, "frame.f_code not in own and ", "", OF_ALARM),
    Mutant("alarm: a debugger may wait", ALARM, "not in _DEBUGGERS", "is not None", OF_ALARM),
    Mutant(
        "alarm: not in other threads", ALARM, "is not None and threading.get_ident() == _MAIN", "is not None", OF_ALARM
    ),
    Mutant(
        "alarm: another's signal is left",
        ALARM,
        "if signal.getsignal(signal.SIGALRM) is signal.SIG_DFL:",
        "if True:",
        OF_ALARM,
    ),
    Mutant(
        "alarm: the configuration's time",
        "envs/factory.py",
        "episode_seed, timeout=env.timeout",
        "episode_seed, timeout=2",
        OF_ALARM,
    ),
    Mutant(
        "workers: hanging ones are noticed",
        WORKERS,
        "if not heard and left <= 0:",
        "if not heard and left <= -15:",
        OF_WORKERS,
    ),
    Mutant(
        "workers: dead ones are noticed at once",
        WORKERS,
        "(not ready and self._ended(i))",
        "False",
        OF_WORKERS,
    ),
    Mutant(
        "workers: none outlives its parent",
        WORKERS,
        "    wait([parent.sentinel])\n    os._exit(1)",
        "    return",
        OF_WORKERS,
    ),
    Mutant("workers: those that hang are ended", WORKERS, "process.kill()", "continue", OF_WORKERS),
    Mutant(
        "spaces: actions are a box",
        "envs/registry.py",
        'raise EnvironmentFault(f"action space {space} is not a Box: ddpg_jax',
        'print(f"{space} ddpg_jax',
        OF_SPACES,
    ),
    Mutant(
        "spaces: actions are floating",
        "envs/registry.py",
        "if not np.issubdtype(space.dtype, np.floating):",
        "if False:",
        OF_SPACES,
    ),
    Mutant(
        "spaces: bounds are finite", "envs/registry.py", "if not np.isfinite([a, b]).all():", "if False:", OF_SPACES
    ),
    Mutant("spaces: bounds are in order", "envs/registry.py", "if not a < b:", "if False:", OF_SPACES),
    Mutant(
        "spaces: observations are a box",
        "envs/registry.py",
        "if not isinstance(space, gymnasium.spaces.Box):\n        raise EnvironmentFault(\n",
        "if False:\n        raise EnvironmentFault(\n",
        OF_SPACES,
    ),
    Mutant(
        "ring: a cut ends the window",
        "replay/ring.py",
        'row["truncated"] |= lanes & ~row["terminated"]',
        "del row",
        f"{RESUME} tests/loops/test_resume.py",
    ),
    Mutant(
        "ring: memory is looked at", "replay/ring.py", "if needed > free:", "if False:", "tests/replay/test_ring.py"
    ),
    Mutant(
        "making: what MuJoCo says of a model is passed over",
        "envs/registry.py",
        "if mujoco is None or mujoco.get_mju_user_warning() is not None:",
        "if True:",
        "tests/envs/test_registry.py -k mujoco_says",
    ),
    Mutant(
        "making: a handler of the user's own is left alone",
        "envs/registry.py",
        " or mujoco.get_mju_user_warning() is not None:",
        ":",
        "tests/envs/test_registry.py -k mujoco_says",
    ),
    Mutant(
        "prefetch: rows are read before",
        "replay/prefetch.py",
        "cpu=read,",
        "cpu=lambda table, rows: rows,",
        "tests/replay/test_prefetch.py",
    ),
    Mutant(
        "priorities: a run may be longer than its counter",
        "equations/priorities.py",
        "min(max(1, rule.updates), LARGEST_COUNT)",
        "max(1, rule.updates)",
        "tests/equations/test_priorities.py",
    ),
    Mutant(
        "device: memory is looked at",
        "loops/start.py",
        "if needed > free:",
        "if False:",
        "tests/loops/test_program.py tests/test_device_run.py",
    ),
    Mutant(
        "device: what is not finite is reported",
        "loops/device.py",
        "if chunk.totals.faults[i]:",
        "if False:",
        "tests/loops/test_program.py",
    ),
    Mutant(
        "device: 0 stands for what is not finite",
        "loops/program.py",
        "return jnp.where(finite, values, jnp.zeros_like(values)), finite.all()",
        "return values, finite.all()",
        "tests/loops/test_program.py -k finite",
    ),
    Mutant(
        "device: the store of a lane keeps its axis",
        "loops/lanes.py",
        "if isinstance(part, Lane):",
        "if False:",
        "tests/loops/test_lanes_alone.py",
    ),
    Mutant(
        "device: a replay with the axis of lanes is given what it takes back",
        "replay/device.py",
        "return jax.vmap(lambda one: replay.write_back(one, *arguments))(store)",
        "return store",
        "tests/loops/test_lanes_alone.py",
    ),
    Mutant(  # with jax 0.10
        "device: what runs seldom alone is compiled by older emitters",
        "loops/compiled.py",
        "if seldom and jax.__version_info__ < (0, 11)",
        "if jax.__version_info__ < (0, 11)",
        "tests/loops/test_program.py -k compiler",
    ),
    Mutant(
        "device: a seed that is alone is compiled without its axis",
        "loops/compiled.py",
        "alone = len(keys) == 1",
        "alone = False",
        "tests/loops/test_program.py -k axis",
    ),
    # the store
    Mutant("store: the manifest's own bytes", VERIFIED, "if content != canonical(manifest):", "if False:", CHECKPOINT),
    Mutant("store: sizes in a manifest", VERIFIED, "    check_layout(manifest, path)\n", "", CHECKPOINT),
    Mutant(
        "store: format and name",
        VERIFIED,
        'if manifest.format != FORMAT or folder.name != f"{manifest.sequence:08d}-step-{manifest.step}":',
        "if False:",
        CHECKPOINT,
    ),
    Mutant("store: a manifest's size", VERIFIED, "if size > _MANIFEST_BYTES:", "if False:", CHECKPOINT),
    Mutant(
        "store: hashes when it is found",
        VERIFIED,
        "if files.hash_file(path) != (size, sha256):",
        "if False:",
        CHECKPOINT,
    ),
    Mutant(
        "store: hashes when it is read",
        VERIFIED,
        "if hashlib.sha256(content).hexdigest() != sha256:",
        "if False:",
        CHECKPOINT,
    ),
    Mutant("store: sizes when it is read", FILES, "        if found != size:\n", "        if False:\n", CHECKPOINT),
    Mutant("store: headers", MANIFEST, "if bytes(content[: len(header)]) != header:", "if False:", CHECKPOINT),
    Mutant("store: links are not followed", FILES, ' | getattr(os, "O_NOFOLLOW", 0)', "", CHECKPOINT),
    Mutant("store: pipes do not block", FILES, ' | getattr(os, "O_NONBLOCK", 0)', "", f"{CHECKPOINT}"),
    Mutant(
        "store: names of new folders are synced",
        FILES,
        "        sync_folder(each.parent)\n",
        "        pass\n",
        CHECKPOINT,
    ),
    Mutant(
        "store: regular files only",
        FILES,
        "if not stat.S_ISREG(os.fstat(descriptor).st_mode):",
        "if False:",
        CHECKPOINT,
    ),
    Mutant(
        "store: names of segments", MANIFEST, 'pattern=r"^\\d{8,}-\\d+-\\d+\\.safetensors$"', 'pattern=r"."', CHECKPOINT
    ),
    Mutant("store: dtypes in a manifest", MANIFEST, "pattern=f\"^({'|'.join(_DTYPES)})$\"", 'pattern="."', CHECKPOINT),
    Mutant(
        "store: staged, then renamed",
        STORE,
        'staging = self._folder / f"{_STAGING}{sequence:08d}"',
        'staging = self._folder / f"{sequence:08d}-step-{checkpoint.step}"',
        CHECKPOINT,
    ),
    Mutant("store: files are synced", FILES, "        os.fsync(file.fileno())\n", "", CHECKPOINT),
    Mutant(
        "store: folders are synced before the rename", STORE, "            files.sync_folder(staging)\n", "", CHECKPOINT
    ),
    Mutant(
        "store: folders are synced after the rename",
        STORE,
        "            committed = True\n            files.sync_folder(self._folder)\n",
        "            committed = True\n",
        CHECKPOINT,
    ),
    Mutant(
        "store: rows' folder is synced",
        SEGMENTS,
        "    if new:\n        files.sync_folder(folder)\n",
        "",
        CHECKPOINT,
    ),
    Mutant(
        "store: what was written is read back",
        STORE,
        "        self._read_back(name, new)\n        return manifest",
        "        return manifest",
        CHECKPOINT,
    ),
    Mutant(
        "store: what is not read back is set aside",
        STORE,
        '            with suppress(OSError):\n                files.rename(self._folder / name, self._folder / f"corrupt-{name}")\n            raise',
        "            raise",
        CHECKPOINT,
    ),
    Mutant("store: two are kept at least", STORE, "max(2, keep)", "1", CHECKPOINT),
    Mutant("store: the best is kept", STORE, "({max(scored)[2]} if scored else set[str]())", "set[str]()", CHECKPOINT),
    Mutant(
        "store: broken ones are set aside",
        STORE,
        '            files.rename(self._folder / name, self._folder / f"corrupt-{name}")\n            where',
        "            where",
        CHECKPOINT,
    ),
    Mutant(
        "store: a broken one is skipped",
        STORE,
        "            except StorageError as error:\n                step = _FOLDER",
        "            except ZeroDivisionError as error:\n                step = _FOLDER",
        CHECKPOINT,
    ),
    Mutant(
        "store: nothing is pruned while a manifest cannot be read",
        STORE,
        "self._known.get(name) or read_manifest(self._folder / name) for name in names}",
        "known for name in names if (known := self._known.get(name))}",
        CHECKPOINT,
    ),
    Mutant(
        "store: pruning takes the name first",
        STORE,
        '                files.rename(self._folder / name, self._folder / f"{_STAGING}{name}")\n                files.remove(self._folder / f"{_STAGING}{name}")',
        "                files.remove(self._folder / name)",
        CHECKPOINT,
    ),
    Mutant(
        "store: leftovers are removed",
        STORE,
        "            if name.startswith(_STAGING):\n                files.remove(self._folder / name)",
        "            pass",
        CHECKPOINT,
    ),
    Mutant("store: rows of another form are written anew", SEGMENTS, "leaves == written_leaves and ", "", CHECKPOINT),
    Mutant(
        "store: rows of another past are written anew", SEGMENTS, " and usable[-1].stop <= rows.stop", "", CHECKPOINT
    ),
    Mutant("store: rows without a gap", SEGMENTS, " and usable[0].first <= rows.first", "", CHECKPOINT),
    Mutant(
        "store: arrays are as described",
        MANIFEST,
        "if (array.dtype.name, list(array.shape)) != (leaf.dtype, leaf.shape):",
        "if False:",
        CHECKPOINT,
    ),
    Mutant(
        "saver: a failure is survived",
        SAVER,
        "except StorageError as error:\n            self._failures",
        "except ZeroDivisionError as error:\n            self._failures",
        RESUME,
    ),
    Mutant("saver: too many failures end the run", SAVER, "if self._failures >= MAX_FAILURES:", "if False:", RESUME),
    Mutant("saver: it waits longer and longer", SAVER, "* 2 ** (self._failures - 1)", "", RESUME),
    Mutant(
        "saver: the last save is tried again",
        SAVER,
        "                if not left:\n                    raise",
        "                raise",
        RESUME,
    ),
    # the run
    Mutant(
        "directory: one owner", DIRECTORY, "fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)", "continue", OF_DIRECTORY
    ),
    Mutant(
        "directory: a used one is refused",
        DIRECTORY,
        "if any(path.name not in _NO_RUN for path in self.path.iterdir()):",
        "if False:",
        OF_DIRECTORY,
    ),
    Mutant(
        "directory: it is looked at again under the lock",
        DIRECTORY,
        "run._clear() if overwrite else run._refuse_if_used()",
        "run._clear() if overwrite else None",
        OF_DIRECTORY,
    ),
    Mutant(
        "directory: files appear whole",
        DIRECTORY,
        "            files.write_file(part, [text.encode()])\n            files.rename(part, path)",
        "            files.write_file(path, [text.encode()])",
        OF_DIRECTORY,
    ),
    Mutant(
        "directory: old results go", "resuming.py", "    directory.drop_results()\n", "", f"{RESUME} {OF_DIRECTORY}"
    ),
    Mutant(
        "record: cut back",
        METRICS,
        "                self._file.truncate(offset)",
        "                pass",
        f"{OF_METRICS} {RESUME}",
    ),
    Mutant(
        "record: a shorter one is refused",
        METRICS,
        "        if self._size < offset:",
        "        if False:",
        f"{OF_METRICS} {RESUME}",
    ),
    Mutant(
        "record: lines wait",
        METRICS,
        "        except OSError as error:\n            if not self._failing",
        "        except ZeroDivisionError as error:\n            if not self._failing",
        OF_METRICS,
    ),
    Mutant(
        "record: torn writes are written over",
        METRICS,
        "                self._file.seek(self._size)  # over what a write that failed has left\n",
        "",
        OF_METRICS,
    ),
    Mutant(
        "record: a checkpoint waits for its lines",
        METRICS,
        '            if self._waiting:\n                raise OSError(f"{len',
        '            if False:\n                raise OSError(f"{len',
        f"{OF_METRICS} {RESUME}",
    ),
    Mutant(
        "tensorboard: its errors end it alone",
        METRICS,
        "        except OSError as error:\n            self._works = False",
        "        except ZeroDivisionError as error:\n            self._works = False",
        OF_METRICS,
    ),
    Mutant(
        "signals: are noted",
        "runs/signals.py",
        "signal.signal(number, self._note) for number in SIGNALS",
        "None for number in ()",
        "tests/runs/test_signals.py",
    ),
    Mutant(
        "signals: a second Ctrl-C aborts",
        "runs/signals.py",
        "            raise KeyboardInterrupt\n",
        "            pass\n",
        "tests/runs/test_signals.py",
    ),
    Mutant(
        "signals: an abort is not lost where the garbage collector calls",
        "runs/signals.py",
        "            threading.Timer(0.001, _thread.interrupt_main).start()",
        "            pass",
        "tests/runs/test_signals.py",
    ),
    Mutant(
        "process: one thread beside narrow networks only",
        "loops/process.py",
        "small = algorithm.narrow and",
        "small =",
        "tests/loops/test_process.py",
    ),
    Mutant(
        "process: seeds of the device loop have a device each",
        "loops/process.py",
        "(on_device and config.max_devices > 1)",
        "False",
        "tests/loops/test_process.py",
    ),
    Mutant(
        "process: many critics have all threads",
        "loops/process.py",
        ' and getattr(algorithm, "num_critics", 1) <= MAX_CRITICS',
        "",
        "tests/loops/test_process.py",
    ),
    Mutant(
        "process: batches that are shared have a device each",
        "config.py",
        "len(self.seed_list) * self.data_parallel",
        "len(self.seed_list)",
        "tests/loops/test_process.py",
    ),
    Mutant(
        "making: a handler of the environment's own is left alone",
        "envs/registry.py",
        "if mujoco.get_mju_user_warning() is _heard:",
        "if True:",
        "tests/envs/test_registry.py -k mujoco_says",
    ),
    Mutant(
        "process: it is the program's alone",
        "training.py",
        "    tune_process: bool = False,\n",
        "    tune_process: bool = True,\n",
        f"{RESUME} -k alone",
    ),
    Mutant(
        "again: another number of cores is warned of",
        "reports/result.py",
        ', "machine"):',
        "):",
        f"{RESUME} -k last_bits",
    ),
    Mutant(
        "cli: an abort leaves no compiler behind (slow)",
        "cli.py",
        "    if code == INTERRUPTED:\n",
        "    if False:\n",
        "tests/test_kills.py -k second_ctrl_c",
    ),
    Mutant(
        "run: saved before a fault ends it",
        "driving.py",
        "_save_before(report.fault, partial(saver.save_now, store, make))",
        "continue",
        RESUME,
    ),
    Mutant(
        "run: a fault is told though no save is possible",
        "driving.py",
        "    except StorageError as error:\n        fault.add_note",
        "    except ZeroDivisionError as error:\n        fault.add_note",
        RESUME,
    ),
    Mutant("run: another structure is refused", "resuming.py", "    if refused:\n", "    if False:\n", RESUME),
    Mutant(
        "run: another learning is warned of",
        "resuming.py",
        "warned = change.effect is Effect.LEARNING",
        "warned = False",
        RESUME,
    ),
    Mutant(
        "run: another environment is refused",
        "resuming.py",
        "    if differing:\n        lines",
        "    if False:\n        lines",
        RESUME,
    ),
    Mutant(
        "run: arrays are not cast",
        "trees.py",
        "    if differences:\n",
        "    if False:\n",
        "tests/test_trees.py tests/runs/test_weights.py",
    ),
    Mutant(
        "journal: observations are compared",
        "loops/journal.py",
        " | (seen != obs).reshape(*returns.shape, -1).any(-1)",
        "",
        "tests/loops/test_journal.py",
    ),
    Mutant(
        "journal: rewards are compared",
        "loops/journal.py",
        " | (total != returns)",
        "",
        "tests/loops/test_journal.py",
    ),
    Mutant(
        "journal: ends are compared",
        "loops/journal.py",
        "ended | (total",
        "(total",
        "tests/loops/test_journal.py",
    ),
    Mutant(
        "console: what cannot be written is no crash",
        "runs/progress.py",
        "except OSError",
        "except ZeroDivisionError",
        "tests/test_cli.py",
    ),
    Mutant(
        "layers: no pickle",
        "runs/files.py",
        "import hashlib\n",
        "import hashlib\nimport pickle\n",
        "tests/test_layers.py",
    ),
    Mutant(
        "layers: no eval",
        "runs/files.py",
        "    size, sha256 = 0, hashlib.sha256()\n    before",
        '    eval("1")\n    size, sha256 = 0, hashlib.sha256()\n    before',
        "tests/test_layers.py",
    ),
    # what is taken up again
    Mutant(
        "again: what cannot be read now is not broken",
        VERIFIED,
        "if error.errno in _FOR_NOW:",
        "if False:",
        f"{RESUME} -k cannot_be_read_now",
    ),
    Mutant(
        "again: an evaluation that failed is made again",
        "loops/host.py",
        "begun.snapshot.untaken is not None",
        "False",
        f"{RESUME} -k in_an_evaluation",
    ),
    Mutant(
        "again: a checkpoint is written where an evaluation fails",
        "driving.py",
        "EnvironmentFault as fault:\n                _save_before(",
        "EnvironmentFault as fault:\n                print(",
        f"{RESUME} -k in_an_evaluation",
    ),
    Mutant(
        "again: an older one without a manifest is set aside",
        STORE,
        "                    read_manifest(self._folder / name)\n            except UnreadableError",
        "                    pass\n            except UnreadableError",
        CHECKPOINT,
    ),
    Mutant(
        "again: weights are kept until there is a checkpoint",
        "training.py",
        "            weights.write(directory.start)\n",
        "            pass\n",
        f"{RESUME} -k begun_with_weights",
    ),
    Mutant(
        "again: a branch keeps its checkpoint",
        "resuming.py",
        "    own.save(checkpoint)\n",
        "",
        f"{RESUME} -k branch",
    ),
    Mutant(
        "again: no run is further than it shall go",
        "resuming.py",
        "    if begin.step >= last:\n        raise",
        "    if False:\n        raise",
        f"{RESUME} -k further",
    ),
    Mutant(
        "again: a finished run without checkpoints does not begin anew",
        "resuming.py",
        "if found is None and 0 < done < config.total_steps:",
        "if False:",
        f"{RESUME} -k without_checkpoints",
    ),
    Mutant(
        "again: as many devices as before (slow)",
        "loops/process.py",
        "    elif on_device:\n        make_core_devices()",
        "    elif on_device:\n        pass",
        f"{RESUME} -k devices",
    ),
    Mutant(
        "again: another job's folders stay",
        "distributed.py",
        ' or any(whole.path.glob("process-*"))',
        "",
        "tests/test_distributed.py -k another_job",
    ),
    Mutant(
        "again: workers leave signals to their parent",
        WORKERS,
        "            signal.signal(getattr(signal, name), signal.SIG_IGN)\n",
        "            pass\n",
        f"{OF_WORKERS} -k whole_group",
    ),
    Mutant(
        "again: workers end with their parent all the same",
        WORKERS,
        "        process.kill()\n\n\ndef _start",
        "        pass\n\n\ndef _start",
        f"{OF_WORKERS} -k forget",
    ),
    Mutant(
        "sweep: another one is refused",
        "sweep.py",
        "        _refuse_another(sweep, load_sweep(directory.sweep), directory)\n",
        "",
        f"{OF_SWEEP} -k another_sweep",
    ),
    Mutant(
        "sweep: a checkpoint of another one is refused",
        "keeping.py",
        'if facts.get("sweep") != _identity(sweep):',
        "if False:",
        f"{OF_SWEEP} -k checkpoint_of_another",
    ),
    Mutant(
        "sweep: its record is cut back",
        "sweep.py",
        "begun.metrics_bytes, warn=say",
        "None, warn=say",
        f"{OF_SWEEP} -k cut_off",
    ),
    Mutant(
        "sweep: it is saved before what it reached is judged",
        "sweep.py",
        "                keeper.save_now(turn, chunk)\n                if not judged:  # for the ranking only: the sweep goes on from what was saved\n                    board.note(turn, chunk)\n                    evaluated(chunk)\n",
        "                board.note(turn, chunk)\n                record.write(evaluated(chunk))\n                keeper.save_now(turn, chunk)\n",
        f"{OF_SWEEP} -k to_the_bit",
    ),
    Mutant(
        "sweep: turns are divided as they were",
        "turns.py",
        "    if fit < least:",
        "    if fit < 1:",
        f"{OF_SWEEP} -k does_not_fit",
    ),
)


def outcome(mutant: Mutant, slow: bool) -> str:
    """`killed by` the first test that failed, or why there is none."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in COPIED:
            source = ROOT / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, root / name)
        (ROOT / ".jax_cache").mkdir(exist_ok=True)
        (root / ".jax_cache").symlink_to(ROOT / ".jax_cache")
        path = root / "ddpg_jax" / mutant.path
        text = path.read_text(encoding="utf-8")
        if text.count(mutant.old) < 1:
            return "NOT FOUND: " + mutant.old
        path.write_text(text.replace(mutant.old, mutant.new, 1), encoding="utf-8")
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "-n",
            "0",
            "-p",
            "no:cacheprovider",
            *mutant.tests.split(),
        ]
        command += ["-m", "slow or not slow"] if slow else []
        environment = os.environ | {"PYTHONPATH": str(root)}
        try:
            run = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=900)
        except subprocess.TimeoutExpired:
            return "killed by the clock"
    failed = [line for line in run.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if run.returncode == 0:
        return "LIVES"
    return f"killed by {failed[0].split(' - ')[0].split(maxsplit=1)[1]}" if failed else f"ENDED: {run.stdout[-300:]}"


def main() -> None:
    """Runs the mutants, a few at a time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="WORD")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--slow", action="store_true", help="slow tests too")
    options = parser.parse_args()
    chosen = [each for each in MUTANTS if not options.words or any(word in each.name for word in options.words)]
    living = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        for mutant, what in zip(chosen, pool.map(lambda each: outcome(each, options.slow), chosen), strict=True):
            living += not what.startswith("killed")
            print(f"{mutant.name}: {what}", flush=True)
    print(f"{len(chosen)} guards, {living} that no test misses")
    sys.exit(min(living, 99))


if __name__ == "__main__":
    main()
