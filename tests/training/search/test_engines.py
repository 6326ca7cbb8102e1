"""One contract for all engines that run something, kept with a child of the standard library that ends as a run does.

The driver is a process of its own (tests/helpers/engine_driver.py), on a SLURM within namespaces of their own.
"""

import functools
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import slurm_here
from engine_child import row_text
from search_runs import check_asynchronous
from whole_search import ASHA, FILE, HALVING, finish, left

from ddpg_jax.training.search.engines import local
from ddpg_jax.training.search.engines.engine import EngineConfig, Task
from ddpg_jax.training.search.engines.local import LocalEngine
from ddpg_jax.training.search.record import read_lines

DRIVER = Path(slurm_here.__file__).with_name("engine_driver.py")
ROWS = 12


@functools.cache
def why_not(kind):
    """Why an engine cannot be had here; None: it can."""
    if kind == "ray":
        return None if importlib.util.find_spec("ray") else "ray: not installed"
    return slurm_here.why_not() if kind == "slurm" else None


KINDS = ["local", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("ray", "slurm", "slurm-site"))]


@pytest.fixture(params=KINDS, scope="module")
def kind(request):
    if (reason := why_not(request.param.partition("-")[0])) is not None:
        pytest.skip(reason)
    return request.param


def command(kind, folder, tasks, *, engine=(), **more):
    """The command line and the variables of a driver, and its plan written."""
    name, _, site = kind.partition("-")
    table = {"kind": name} | ({"processes": 4} if name == "local" else {}) | ({"requeue": "site"} if site else {})
    plan = {"engine": table | dict(engine), "folder": str(folder), "tasks": tasks, **more}
    folder.mkdir(exist_ok=True)
    (folder / "plan.json").write_text(json.dumps(plan))
    words = [sys.executable, str(DRIVER), str(folder / "plan.json")]
    if name == "slurm":
        words = [sys.executable, slurm_here.__file__, str(folder / "slurm-here"), *words]
    extra = {"SLURM_HERE_MORE": "RequeueExit=75" if site else ""}
    return words, os.environ | extra


def drive(kind, folder, tasks, **more):
    """What came of tasks by name, from a driver that ran to its end."""
    words, variables = command(kind, folder, tasks, **more)
    done = subprocess.run(words, env=variables, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["heavy"] == []
    print(kind, said["seconds"])
    return said["ended"]


def check_rows(folder, names, rows=ROWS):
    """All rows are there, equal, none twice."""
    for name in names:
        assert (folder / name / "rows").read_text() == "".join(map(row_text, range(rows))), name


TASKS = {
    "fine": [],
    "refused": ["--end", "2"],
    "broken": ["--end", "3"],
    "diverged": ["--end", "4"],
    "full": ["--end", "5"],
    "full-once": ["--end", "5", "--times", "1"],
    "interrupted": ["--kill", str(int(signal.SIGTERM)), "--times", "3"],
    "crashes": ["--kill", str(int(signal.SIGSEGV))],
    "killed": ["--kill", str(int(signal.SIGKILL)), "--times", "2"],
}
COMPLETE = ("fine", "full-once", "interrupted", "killed")
WANTED = {  # name: (code, starts)
    "fine": (0, 1),
    "refused": (2, 1),
    "broken": (3, 1),
    "diverged": (4, 1),
    "full": (5, 3),
    "full-once": (0, 2),
    "interrupted": (0, 4),
    "crashes": (-11, 3),
    "killed": (0, 3),
}


def test_codes_are_results_or_reasons_to_start_again(kind, tmp_path):
    ended = drive(kind, tmp_path, TASKS)
    assert {name: (each["code"], each["attempts"]) for name, each in ended.items()} == WANTED
    check_rows(tmp_path, COMPLETE)
    for name, (_, starts) in WANTED.items():
        assert len((tmp_path / name / "starts").read_text().splitlines()) == starts
        assert (tmp_path / f"{name}.log").read_text().count("--- start on ") == starts
    assert ended["refused"]["said"] == "ends with 2 at row 4"
    assert (tmp_path / "interrupted.log").read_text().count("interrupted at row") == 3


def test_a_stop_is_passed_on_and_the_next_driver_goes_on(kind, tmp_path):
    tasks = {"a": ["--rows", "400", "--seconds", "0.05"], "b": ["--rows", "400", "--seconds", "0.05"]}
    ended = drive(kind, tmp_path, tasks, stop_at_rows=3)
    assert {name: (each["code"], each["attempts"]) for name, each in ended.items()} == {"a": (75, 1), "b": (75, 1)}
    assert all(each["said"].startswith("interrupted at row ") for each in ended.values())
    left = {name: len((tmp_path / name / "rows").read_text().splitlines()) for name in tasks}
    assert all(3 <= rows < 400 for rows in left.values())
    again = drive(kind, tmp_path, {name: ["--rows", "400", "--seconds", "0"] for name in tasks})
    assert {name: (each["code"], each["attempts"]) for name, each in again.items()} == {"a": (0, 1), "b": (0, 1)}
    check_rows(tmp_path, tasks, 400)


def alive(number):
    """Whether a process runs; one that has ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def await_true(condition, seconds=60.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)


def test_children_end_with_a_driver_that_is_killed(kind, tmp_path):
    """Even those that hear no SIGTERM. SLURM's go on, by their nature; the next driver ends them before it begins."""
    name = kind.partition("-")[0]
    if name == "slurm":
        pytest.skip("the namespace ends with its first process, the controller too; see the next test")
    words, variables = command(kind, tmp_path, {"deaf": ["--rows", "100000", "--deaf"]})
    driver = subprocess.Popen(words, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    rows = tmp_path / "deaf" / "rows"
    await_true(lambda: rows.exists() and rows.stat().st_size > 0, 120)
    child = int((tmp_path / "deaf" / "starts").read_text())
    assert alive(child)
    driver.kill()
    driver.wait()
    await_true(lambda: not alive(child))
    ended = drive(kind, tmp_path, {"deaf": ["--rows", "20", "--seconds", "0"]})
    assert (ended["deaf"]["code"], ended["deaf"]["attempts"]) == (0, 1)


KILLED_DRIVER = """
import signal, subprocess, sys, time
from pathlib import Path
driver, rows = sys.argv[1:]
first = subprocess.Popen([sys.executable, driver, f"{rows}/plan.json"], stdout=subprocess.DEVNULL)
while not (Path(rows) / "long" / "rows").exists():
    time.sleep(0.1)
first.kill()
first.wait()
sys.exit(subprocess.run([sys.executable, driver, f"{rows}/plan2.json"]).returncode)
"""


@pytest.mark.slow
@pytest.mark.skipif(why_not("slurm") is not None, reason=str(why_not("slurm")))
def test_jobs_of_a_driver_that_was_killed_are_ended_by_the_next(tmp_path):
    words, variables = command("slurm", tmp_path, {"long": ["--rows", "100", "--seconds", "0.2"]})
    plan = json.loads((tmp_path / "plan.json").read_text())
    plan["tasks"]["long"] = ["--rows", "100", "--seconds", "0"]
    (tmp_path / "plan2.json").write_text(json.dumps(plan))
    words = [*words[:3], sys.executable, "-c", KILLED_DRIVER, str(DRIVER), str(tmp_path)]
    done = subprocess.run(words, env=variables, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    ended = json.loads(done.stdout.splitlines()[-1])["ended"]
    assert (ended["long"]["code"], ended["long"]["attempts"]) == (0, 1)
    check_rows(tmp_path, ["long"], 100)


@pytest.mark.slow
@pytest.mark.skipif(why_not("slurm") is not None, reason=str(why_not("slurm")))
def test_a_controller_that_starts_anew_is_waited_for(tmp_path):
    """Jobs go on meanwhile: none is taken for ended, none started twice; what ends meanwhile is heard of later."""
    words, variables = command("slurm", tmp_path, {"a": ["--rows", "120", "--seconds", "0.1"], "b": ["--end", "5"]})
    variables["SLURM_HERE_OUTAGE"] = f"{tmp_path / 'a' / 'rows'},8"
    done = subprocess.run(words, env=variables, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    ended = json.loads(done.stdout.splitlines()[-1])["ended"]
    assert {name: (each["code"], each["attempts"]) for name, each in ended.items()} == {"a": (0, 1), "b": (5, 3)}
    check_rows(tmp_path, ["a"], 120)


@pytest.mark.slow
@pytest.mark.skipif(why_not("ray") is not None, reason=str(why_not("ray")))
def test_a_node_of_ray_may_be_lost(tmp_path):
    """Three raylets on loopback; one is killed without grace while it runs something."""
    words = [sys.executable, str(DRIVER.with_name("ray_nodes.py")), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout.splitlines()[-1])
    print(said)
    assert said["lost"]
    assert all(each["code"] == 0 for each in said["ended"].values())
    assert all(said["ended"][name]["attempts"] >= 2 for name in said["lost"])
    check_rows(tmp_path, said["ended"], said["rows"])
    assert said["seconds_after_loss"] < 60


def searched_by(kind, path, tmp_path):
    """What a search of real runs leaves that an engine ran."""
    before = (sys.executable, slurm_here.__file__, str(tmp_path / "slurm-here")) if kind == "slurm" else ()
    print(finish(path, tmp_path / kind, "--engine", kind, before=before))
    return left(tmp_path / kind)


def engine_or_skip(kind):
    """A slow parameter, left out where the engine cannot be had."""
    absent = why_not(kind)
    return pytest.param(kind, marks=[pytest.mark.slow, pytest.mark.skipif(absent is not None, reason=str(absent))])


ON_SEVERAL_MACHINES = [engine_or_skip("ray"), engine_or_skip("slurm")]


@pytest.mark.parametrize("kind", ON_SEVERAL_MACHINES)
def test_equal_searches_leave_equal_records_on_each_engine(kind, tmp_path):
    """Real runs: whichever ended first, and wherever, the record, the runs and the ranking are the same bytes."""
    path = tmp_path / "search.toml"
    path.write_text(FILE.format(env="Pendulum-v1") + HALVING)
    expected = searched_by("local", path, tmp_path)
    assert len(expected[1]) == 4  # three settings, and the best with fresh seeds
    assert all(expected[1].values())
    assert searched_by(kind, path, tmp_path) == expected


@pytest.mark.parametrize("kind", ON_SEVERAL_MACHINES)
def test_asynchronous_halving_keeps_its_rules_on_each_engine(kind, tmp_path):
    """Real runs, in whatever order they end; who has stopped keeps the steps that it had made."""
    path = tmp_path / "search.toml"
    text = FILE.format(env="Pendulum-v1").replace("trials = 3", "trials = 5").replace("batch = 3", "batch = 2")
    path.write_text(text + ASHA)
    _, records, result = searched_by(kind, path, tmp_path)
    lines = read_lines(tmp_path / kind / "trials.jsonl")[0]
    check_asynchronous(lines, trials=5, batch=2, rungs=2)
    last = {line["pack"]: line["step"] for line in lines if line["event"] == "scored"}
    reached = {name: json.loads(record.splitlines()[-1])["step"] for name, record in records.items()}
    assert reached == last
    assert sorted(set(last.values())) == [200, 800]
    assert len(result["retrained"]["per_seed"]) == 2


def test_local_divides_cores_and_gpus(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    tasks = {str(i): ["--rows", "2", "--seconds", "1"] for i in range(4)}
    drive("local", tmp_path, tasks, engine={"gpus_per_process": 0.5, "cores_per_process": 1})
    seen = [json.loads((tmp_path / name / "seen.json").read_text()) for name in tasks]
    assert sorted(each["CUDA_VISIBLE_DEVICES"] for each in seen) == ["2", "2", "5", "5"]
    assert {each["XLA_PYTHON_CLIENT_MEM_FRACTION"] for each in seen} == {"0.45"}
    assert all(len(each["cores"]) == 1 for each in seen)
    assert {core for each in seen for core in each["cores"]} == set(sorted(os.sched_getaffinity(0))[:4])
    assert {each["threads"] for each in seen} == {"3"}


def test_what_a_program_leaves_of_its_group_is_ended(tmp_path):
    code = "import subprocess, sys; print(subprocess.Popen(['sleep', '300']).pid)"
    engine = LocalEngine(EngineConfig())
    engine.submit(Task("leaves", (sys.executable, "-c", code), tmp_path / "leaves"))
    (ended,) = engine.wait(lambda: False)
    assert ended.code == 0
    await_true(lambda: not alive(int(ended.said)))


def test_a_program_that_is_not_there_is_a_result(tmp_path):
    engine = LocalEngine(EngineConfig())
    engine.submit(Task("none", (str(tmp_path / "none"),), tmp_path / "run"))
    (ended,) = engine.wait(lambda: False)
    assert (ended.code, ended.attempts) == (127, 1)
    assert ended.said == f"{tmp_path}/none cannot be started: No such file or directory"
    assert engine.wait(lambda: False) == []


def test_close_ends_what_hears_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "_CLOSE_SECONDS", 0.3)
    engine = local.LocalEngine(EngineConfig())
    child = str(DRIVER.with_name("engine_child.py"))
    engine.submit(
        Task("deaf", (sys.executable, child, str(tmp_path / "deaf"), "--rows", "9999", "--deaf"), tmp_path / "deaf")
    )
    rows = tmp_path / "deaf" / "rows"
    engine._start()
    await_true(lambda: rows.exists() and rows.stat().st_size > 0)
    engine.close()
    assert not alive(int((tmp_path / "deaf" / "starts").read_text()))


def test_the_modules_of_engines_import_nothing_heavy():
    names = ["engine", "child", "local", "ray", "slurm", "slurm_commands", "kubernetes", "factory", "examine"]
    code = "".join(f"import ddpg_jax.training.search.engines.{name}\n" for name in names)
    heavy = ["jax", "flax", "optax", "ray", "kubernetes", "optuna", "scipy"]
    code += f"import sys\nprint([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
