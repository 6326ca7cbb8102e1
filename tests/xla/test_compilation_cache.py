"""Compiled programs that are kept: found again, never taken when damaged, never in a run's way."""

import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache.compilation_cache import reset_cache

import ddpg_jax as dj
from ddpg_jax.cli.main import main
from ddpg_jax.xla import compilation_cache
from ddpg_jax.xla.compilation_cache import CheckedCache, cache_folder, machine_key, prune, usage

RUN = (
    *("--seeds", "2", "--total-steps", "30", "--env.max-episode-steps", "15", "--algorithm.hidden", "[8]"),
    *("--algorithm.batch-size", "4", "--algorithm.warmup-steps", "20", "--replay.capacity", "100"),
    *("--evaluation.episodes", "1", "--quiet"),
)
STARTS, DAMAGES = 20, 50


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder for programs, and a process in which jax has no cache yet."""
    monkeypatch.setenv("DDPG_JAX_CACHE", str(tmp_path / "cache"))
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    reset_cache()
    yield tmp_path / "cache" / "programs"
    jax.config.update("jax_compilation_cache_dir", before)
    reset_cache()


def entries(folder):
    """The kept programs and which file each is, written when; a program that is compiled again is another."""
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.glob("*/*.program")}


def numbers():
    """Of programs that nobody has compiled in this process, one of which reuses its argument's memory."""
    x = np.linspace(-2.0, 2.0, 12, dtype=np.float32).reshape(3, 4)
    products = jax.jit(lambda x: jnp.tanh(x @ x.T))(x)
    added = jax.jit(lambda x, y: x + jnp.sin(y), donate_argnums=1)(x[:, :3], products)
    return np.asarray(jax.jit(lambda x: x.sum(axis=0))(added)).tobytes()


def flip(stored, others, rng):
    at = int(rng.integers(len(stored)))
    return stored[:at] + bytes([stored[at] ^ 1 << int(rng.integers(8))]) + stored[at + 1 :]


def cut(stored, others, rng):
    return stored[: int(rng.integers(1, len(stored)))]


def empty(stored, others, rng):
    return b""


def garble(stored, others, rng):
    return rng.bytes(len(stored))


def confuse(stored, others, rng):
    return others[rng.integers(len(others))]


DAMAGE = (flip, cut, empty, garble, confuse)


def damage_all(folder, rng, ways=DAMAGE):
    """Damages each entry in one of some ways; what is there then."""
    whole = {path: path.read_bytes() for path in sorted(entries(folder))}
    for path, stored in whole.items():
        others = [other for other in whole.values() if other != stored]
        path.write_bytes(ways[rng.integers(len(ways))](stored, others, rng))
    return entries(folder)


def test_a_second_start_compiles_nothing(folder):
    assert dj.enable_compilation_cache() == folder
    first = numbers()
    kept = entries(folder)
    assert numbers() == first
    assert entries(folder) == kept
    assert len(kept) == 3
    assert usage(folder) == (len(kept), sum(path.stat().st_size for path in kept))


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_damaged_is_compiled_again(damage, folder):
    dj.enable_compilation_cache()
    first = numbers()
    damaged = damage_all(folder, np.random.default_rng(0), [damage])
    assert numbers() == first
    mended = entries(folder)
    assert mended.keys() == damaged.keys()
    assert not set(mended.values()) & set(damaged.values())  # all were compiled again, not one was taken
    assert numbers() == first
    assert entries(folder) == mended


@pytest.mark.parametrize("identifier", ["Pendulum-v1", pytest.param("jax:pendulum", marks=pytest.mark.slow)])
def test_a_run_ends_equal_with_the_cache_and_without(identifier, folder, tmp_path):
    left = {}
    for name in ("first", "second"):
        kept = entries(folder)
        directory = tmp_path / name
        assert main(["train", *RUN, "--env.id", identifier, "--run-dir", str(directory)]) == 0
        left[name] = [(directory / each).read_bytes() for each in ("checkpoints/final.safetensors", "metrics.jsonl")]
    assert left["first"] == left["second"]
    assert len(kept) > 2  # the programs of the run; small ones of jax come and go with its version
    assert entries(folder) == kept  # the second start has compiled nothing
    reset_cache()
    assert main(["evaluate", str(directory), "--episodes", "1", "--no-cache"]) == 0
    assert entries(folder) == kept


def test_entries_appear_whole_or_not_at_all(tmp_path):
    """Against writers of the same key, damage and removal, all at once."""
    cache, values = CheckedCache(tmp_path), [bytes([i]) * 100_000 for i in range(4)]
    seen, stop = set(), threading.Event()

    def write(value):
        while not stop.is_set():
            cache.put("key", value)

    def harm():
        while not stop.is_set():
            for path in tmp_path.glob("*/*.program"):
                path.unlink(missing_ok=True)
                path.write_bytes(values[0])

    threads = [threading.Thread(target=write, args=(value,)) for value in values]
    threads.append(threading.Thread(target=harm))
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and not (seen >= {None, *values}):
        seen.add(cache.get("key"))
    stop.set()
    for thread in threads:
        thread.join()
    assert seen - {None} <= set(values)
    assert seen - {None}
    assert [path for path in tmp_path.rglob("*.writing")] == []


@pytest.mark.parametrize(
    "reason", ["a file", "others may write", "no home", "jax's own", "forbidden", "another jax", "another put"]
)
def test_where_it_cannot_be_used_a_run_goes_without(reason, folder, monkeypatch, tmp_path):
    if reason == "a file":
        (tmp_path / "cache").touch()
    elif reason == "others may write":
        folder.mkdir(parents=True)
        folder.chmod(0o777)
    elif reason == "no home":
        for name in ("DDPG_JAX_CACHE", "XDG_CACHE_HOME"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HOME", "/dev/null/home")
    elif reason == "jax's own":
        jax.config.update("jax_compilation_cache_dir", str(tmp_path / "jax's"))
    elif reason == "forbidden":
        jax.config.update("jax_enable_compilation_cache", False)
    elif reason == "another jax":
        monkeypatch.delattr("jax._src.compilation_cache._cache_initialized_mutex")
    else:
        monkeypatch.setattr(
            "jax._src.compilation_cache_interface.CacheInterface.put", lambda self, key, value, age: None
        )
    try:
        assert dj.enable_compilation_cache() is None
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
    monkeypatch.undo()
    assert np.isfinite(np.frombuffer(numbers(), np.float32)).all()
    assert entries(tmp_path) == {}


def test_a_full_disk_costs_nothing_but_the_entry(tmp_path):
    cache, limits = CheckedCache(tmp_path), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # writing more fails, as on a full disk
    try:
        cache.put("large", bytes(2000))
        cache.put("small", bytes(20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert cache.get("large") is None
    assert cache.get("small") == bytes(20)
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


def test_the_least_recently_used_goes_first_and_no_file_of_somebody_else(tmp_path):
    cache, now = CheckedCache(tmp_path), time.time()
    for age, key in enumerate(("newest", "middle", "used", "oldest", "forgotten")):
        cache.put(key, bytes(1000))
        hours = 24 * 31 if key == "forgotten" else 2 + age
        os.utime(cache._file(key), (now - 3600 * hours,) * 2)
    abandoned, written = cache.entries / "a.writing", cache.entries / "b.writing"
    foreign = tmp_path / "photographs" / "holiday.jpg"
    foreign.parent.mkdir()
    for path in (abandoned, written, foreign):
        path.touch()
    for path in (abandoned, foreign):
        os.utime(path, (0, 0))
    assert cache.get("used") == bytes(1000)
    prune(tmp_path, most_bytes=3500)
    assert [key for key in ("newest", "middle", "used", "oldest", "forgotten") if cache.get(key)] == [
        *("newest", "middle", "used")
    ]
    assert foreign.exists()
    assert written.exists()
    assert not abandoned.exists()
    prune(tmp_path, most_bytes=0)
    assert [path for path in tmp_path.iterdir()] == [foreign.parent]


@pytest.mark.parametrize("changed", ["flags", "threads", "one thread", "cores", "processor", "version"])
def test_programs_for_another_machine_are_not_found(changed, monkeypatch):
    before = machine_key()
    if changed == "flags":
        monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_max_isa=AVX2")
    elif changed == "threads":
        monkeypatch.setenv("NPROC", "1" if os.environ.get("NPROC") != "1" else "2")
    else:
        name, value = {
            "one thread": ("limited_to_one_thread", lambda: "changed"),
            "cores": ("available_cores", lambda: 0),
            "processor": ("_processor", lambda: ("another",)),
            "version": ("__version__", "another"),
        }[changed]
        monkeypatch.setattr(compilation_cache, name, value)
    assert machine_key() != before


@pytest.mark.parametrize(
    ("variables", "right"),
    [
        ({"DDPG_JAX_CACHE": "/named"}, "/named/programs"),
        ({"XDG_CACHE_HOME": "/caches"}, "/caches/ddpg_jax/programs"),
        ({"XDG_CACHE_HOME": "relative"}, "/home/somebody/.cache/ddpg_jax/programs"),
        ({}, "/home/somebody/.cache/ddpg_jax/programs"),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other folders")
def test_the_folder_is_where_the_user_or_the_system_says(variables, right, monkeypatch):
    for name in ("DDPG_JAX_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/somebody", **variables}.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(right)


PROGRAMS = """if True:
    import sys, time
    from pathlib import Path
    import jax, jax.numpy as jnp
    import numpy as np
    from ddpg_jax.xla.compilation_cache import enable_compilation_cache
    if "without" not in sys.argv:
        assert enable_compilation_cache()
    jax.devices()
    began, ready = map(Path, sys.argv[1:3])
    ready.touch()
    while not began.exists():
        time.sleep(0.01)
    x = np.linspace(-2.0, 2.0, 12, dtype=np.float32).reshape(3, 4)
    for i in range(10):
        step = jax.jit(lambda x: jnp.tanh(x @ x.T @ x) + i * jnp.sin(x).mean(axis=0), donate_argnums=0)
        x = step(x)
    print(np.asarray(x).tobytes().hex())
"""


@pytest.mark.slow
def test_many_first_starts_at_once_and_many_damaged_entries(tmp_path):
    """Twenty processes compile the same programs into an empty folder at once; then starts meet fifty damaged ones."""
    left_out = ("JAX_COMPILATION_CACHE_DIR", "XLA_FLAGS")
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    environment["DDPG_JAX_CACHE"], folder = str(tmp_path / "cache"), tmp_path / "cache" / "programs"

    def together(count, *words):
        """What so many processes print that begin to compile at one moment."""
        began, ready = tmp_path / f"began-{time.monotonic_ns()}", [tmp_path / f"{i}" for i in range(count)]
        commands = [[sys.executable, "-c", PROGRAMS, began, each, *words] for each in ready]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started = [subprocess.Popen(command, env=environment, **pipes) for command in commands]
        while not all(path.exists() for path in ready) and all(process.poll() is None for process in started):
            time.sleep(0.05)
        began.touch()
        for process, path in zip(started, ready, strict=True):
            printed, errors = process.communicate(timeout=300)
            assert (process.returncode, errors) == (0, "")
            path.unlink()
            yield printed

    (right,) = together(1, "without")
    assert len(right) > 50
    assert not folder.exists()
    assert list(together(STARTS)) == [right] * STARTS
    kept, rng, count = entries(folder), np.random.default_rng(0), 0
    assert len(kept) == 10
    assert [path for path in folder.rglob("*") if path.suffix not in ("", ".program")] == []
    while count < DAMAGES:
        damaged = damage_all(folder, rng)
        count += len(damaged)
        assert list(together(2)) == [right] * 2
        mended = entries(folder)
        assert mended.keys() == kept.keys()
        assert not set(mended.values()) & set(damaged.values())
