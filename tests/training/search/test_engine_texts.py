"""What engines write and read as text, and how they divide and judge, without starting anything but bash."""

import importlib.util
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from ddpg_jax.cli.main import main
from ddpg_jax.errors import ConfigError
from ddpg_jax.training.search.engines import examine, kubernetes, slurm, slurm_commands
from ddpg_jax.training.search.engines.engine import (
    EngineConfig,
    LogMarks,
    Starts,
    Task,
    last_words,
    log_path,
    mark_end,
    mark_start,
    parse_engine,
    pause_seconds,
    read_marks,
    starts_again,
    stopped_code,
)
from ddpg_jax.training.search.engines.factory import make_engine
from ddpg_jax.training.search.engines.local import divide

TASKS = [
    Task("one", ("python", "-c", "print('a b')"), Path("/runs/one")),
    Task("two", ("ddpg-jax", "train", "--run-dir", "/runs/it's two"), Path("/runs/it's two")),
]
CLUSTER = {"image": "registry/ddpg-jax:1", "volume": "runs"}


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"knd": "ray"}, "engine.knd: unknown key; did you mean kind?"),
        ({"kind": "slrm"}, "engine.kind = 'slrm': must be 'local', 'ray', 'slurm' or 'kubernetes'"),
        ({"processes": 0}, "engine.processes = 0: must be greater than or equal to 1"),
        ({"partition": "gpu"}, 'partition belongs to engine.kind = "slurm", not "local"'),
        ({"kind": "ray", "processes": 3}, 'processes belongs to engine.kind = "local" or "slurm", not "ray"'),
        ({"gpus_per_process": 1.5}, "gpus_per_process = 1.5: must be a fraction below 1, or a whole number"),
        ({"kind": "slurm", "gpus_per_process": 0.5}, 'engine.kind = "slurm" gives whole GPUs only'),
        ({"kind": "slurm", "time": "soon"}, "engine.time = 'soon': "),
    ],
)
def test_mistakes_are_named(table, said):
    with pytest.raises(ConfigError) as caught:
        parse_engine(table, "sweep.toml")
    assert str(caught.value).startswith("sweep.toml: [engine] is wrong:\n  ")
    assert said in str(caught.value)


def test_all_mistakes_are_named_at_once():
    with pytest.raises(ConfigError, match=r"(?s)engine.processes.*engine.retries.*engine.sort"):
        parse_engine({"processes": 0, "retries": -1, "sort": 1}, "sweep.toml")


@pytest.mark.parametrize(
    ("codes", "again"),
    [
        ([0], False),
        ([1], False),
        ([2], False),
        ([3], False),
        ([4], False),
        ([127], False),
        ([75] * 50, True),
        ([5], True),
        ([5, 75, 5], True),
        ([5, 5, 5], False),
        ([-9], True),
        ([137, -11], True),
        ([-9, 75, 139, -6], False),
        ([5, 5, -9], True),
    ],
)
def test_when_a_task_is_started_again(codes, again):
    starts = Starts()
    for code in codes:
        starts = starts.add(code, 60.0)
    assert starts.total == len(codes)
    assert starts_again(codes[-1], starts, retries=2) == again


def test_what_ends_at_once_waits_longer_and_longer():
    starts, pauses = Starts(), []
    for _ in range(12):
        starts = starts.add(75, 0.1)
        pauses.append(pause_seconds(starts))
    assert pauses[0] == pytest.approx(0.2)
    assert pauses == sorted(pauses)
    assert pauses[-1] == 30.0
    assert pause_seconds(starts.add(75, 11.0)) == 0.0


def test_a_child_that_could_not_hear_the_notice_yet_is_resumable():
    assert [stopped_code(code) for code in (-15, 143, 75, 0, 2, -9)] == [75, 75, 75, 0, 2, -9]


def test_the_log_lies_beside_the_directory_and_tells_starts_apart(tmp_path):
    log = log_path(tmp_path / "runs" / "a.b")
    assert log == tmp_path / "runs" / "a.b.log"
    assert read_marks(log) == LogMarks(0, "", None)
    assert last_words(log) == ""
    mark_start(log, "n1")
    with open(log, "a") as file:
        file.write("first\nno newline")
    mark_end(log, -9)
    mark_start(log, "n2")
    assert read_marks(log) == LogMarks(2, "n2", None)
    assert last_words(log) == ""
    with open(log, "a") as file:
        file.write("".join(f"line {i}\n" for i in range(20)))
    mark_end(log, 3)
    assert read_marks(log) == LogMarks(2, "n2", 3)
    assert last_words(log).splitlines() == [f"line {i}" for i in range(12, 20)]


def test_cores_are_divided():
    assert [place.cores for place in divide(EngineConfig(), [0, 1, 4], [])] == [(0,), (1,), (4,)]
    assert [place.cores for place in divide(EngineConfig(cores_per_process=2), [0, 1, 4], [])] == [(0, 1)]
    assert [place.cores for place in divide(EngineConfig(processes=2), [*range(6)], [])] == [(0, 1, 2), (3, 4, 5)]
    assert [place.cores for place in divide(EngineConfig(processes=3), [0, 1], [])] == [(0,), (1,), (0,)]
    assert divide(EngineConfig(), [0], [])[0].variables() == {}


def test_gpus_are_divided():
    cores = [*range(8)]

    def seen(**fields):
        return [tuple(place.variables().values()) for place in divide(EngineConfig(**fields), cores, ["0", "3"])]

    assert seen() == [("0", "0.9"), ("3", "0.9")]
    assert seen(gpus_per_process=2) == [("0,3", "0.9")]
    assert seen(gpus_per_process=0.5) == [("0", "0.45"), ("3", "0.45")] * 2
    assert seen(gpus_per_process=1 / 3, processes=6) == [("0", "0.3"), ("3", "0.3")] * 3
    assert seen(gpus_per_process=0, processes=2) == [("",), ("",)]
    with pytest.raises(ConfigError, match="there is room for 2 on 2 GPUs"):
        divide(EngineConfig(processes=3, gpus_per_process=1), cores, ["0", "3"])
    with pytest.raises(ConfigError, match="there is room for 0 on 0 GPUs"):
        divide(EngineConfig(gpus_per_process=1), cores, [])


@pytest.mark.parametrize("requeue", ["script", "site"])
def test_the_script_of_an_array_is_one_that_bash_reads(requeue):
    config = EngineConfig(
        kind="slurm",
        processes=7,
        time="1:00:00",
        partition="gpu",
        gpus_per_process=1,
        requeue=requeue,
        lines=("cd /x",),
    )
    text = slurm.render(TASKS, config, Path("/runs"), ["bad1", "bad2"])
    for line in ("array=0-1%7", "time=1:00:00", "partition=gpu", "gpus-per-task=1", "exclude=bad1,bad2"):
        assert f"#SBATCH --{line}\n" in text
    for line in ("requeue", "open-mode=append", "signal=B:TERM@180", "cpus-per-task=1"):
        assert f"#SBATCH --{line}\n" in text
    assert text.index("cd /x") > text.rindex("#SBATCH")
    assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0
    assert ("exec" in text) == (requeue == "site")
    assert ("scontrol requeue" in text) == (requeue == "script")


@pytest.mark.parametrize("requeue", ["script", "site"])
def test_the_script_starts_the_words_as_they_are(tmp_path, requeue):
    task = Task("odd", ("bash", "-c", 'printf "%s|" "$@"; exit 3', "it's", "a  b", "$HOME", "*"), tmp_path / "it's")
    text = slurm.render([TASKS[0], task], EngineConfig(kind="slurm", requeue=requeue), tmp_path)
    variables = {"SLURM_ARRAY_TASK_ID": "1", "SLURMD_NODENAME": "n7", "PATH": "/usr/bin:/bin"}
    assert subprocess.run(["bash"], input=text, text=True, env=variables).returncode == 3
    assert "a  b|$HOME|*|" in log_path(task.directory).read_text()
    marks = read_marks(log_path(task.directory))
    assert (marks.starts, marks.node, marks.code) == (1, "n7", 3 if requeue == "script" else None)


def test_what_the_controller_says_is_read():
    line = "JobId=9 ArrayJobId=7 ArrayTaskId=2 JobState={} Reason=x Restarts=1 ExitCode={} NodeList=n1 BatchHost=n1"
    read = slurm_commands._read_state
    assert read(line.format("COMPLETED", "0:0")) == {"7_2": slurm_commands.JobState("COMPLETED", 0, "n1")}
    assert read(line.format("FAILED", "137:0"))["7_2"].code == -9
    assert read(line.format("FAILED", "0:11"))["7_2"].code == -11
    assert read(line.format("OUT_OF_MEMORY", "0:125"))["7_2"].code == -9
    assert read(line.format("TIMEOUT", "0:0"))["7_2"].code == -15
    assert read(line.format("CANCELLED", "0:15"))["7_2"].code == 75
    assert read(line.format("PENDING", "75:0"))["7_2"].going
    waiting = read("JobId=7 ArrayJobId=7 ArrayTaskId=3,5-7%2 JobState=PENDING ExitCode=0:0")
    assert sorted(waiting) == ["7_3", "7_5", "7_6", "7_7"]


@pytest.mark.skipif(shutil.which("sbatch") is not None, reason="SLURM is installed")
def test_without_slurm_that_is_said(tmp_path):
    with pytest.raises(ConfigError, match=r'engine\.kind = "slurm" needs sbatch, scontrol'):
        make_engine(EngineConfig(kind="slurm"), tmp_path)


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_that_is_said(tmp_path):
    with pytest.raises(ConfigError, match=r"pip install 'ddpg-jax\[ray\]'"):
        make_engine(EngineConfig(kind="ray"), tmp_path)


def test_kubernetes_is_text_alone(tmp_path):
    config = EngineConfig(kind="kubernetes", **CLUSTER)
    with pytest.raises(ConfigError, match="written as text"):
        make_engine(config, tmp_path)
    with pytest.raises(ConfigError, match=r"needs engine.image and engine.volume"):
        kubernetes.render(TASKS, EngineConfig(kind="kubernetes"))
    spec = json.loads(kubernetes.render(TASKS, config))["spec"]
    rules = spec["podFailurePolicy"]["rules"]
    assert [rule["action"] for rule in rules] == ["Ignore", "Ignore", "FailIndex"]
    assert rules[1]["onExitCodes"]["values"] == [75]
    assert rules[2]["onExitCodes"]["values"] == [2, 3, 4]
    assert (spec["completions"], spec["backoffLimitPerIndex"]) == (2, 2)
    pod = spec["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    assert pod["containers"][0]["volumeMounts"][0]["mountPath"] == "/runs"


def test_the_pod_starts_the_words_as_they_are(tmp_path):
    task = Task("odd", ("bash", "-c", 'printf "%s|" "$@"; exit 75', "-", "it's", "a  b", "$HOME"), tmp_path / "odd")
    job = kubernetes.job([TASKS[0], task], EngineConfig(kind="kubernetes", **CLUSTER))
    command = job["spec"]["template"]["spec"]["containers"][0]["command"]
    done = subprocess.run(command, env={"JOB_COMPLETION_INDEX": "1", "PATH": "/usr/bin:/bin"})
    assert done.returncode == 75
    assert "it's|a  b|$HOME|" in log_path(task.directory).read_text()


def test_the_job_has_the_types_of_kubernetes():
    """Every key is one that the client's type of that place has, and every value of the type that it says."""
    client = pytest.importorskip("kubernetes.client", reason="kubernetes: not installed")
    job = kubernetes.job(TASKS, EngineConfig(kind="kubernetes", gpus_per_process=1, **CLUSTER))
    check_type(client, job, "V1Job")
    with pytest.raises(AssertionError):
        check_type(client, {**job, "spec": job["spec"] | {"completion": 2}}, "V1Job")


def check_type(client, value, name):
    if name.startswith("list["):
        assert isinstance(value, list)
        for each in value:
            check_type(client, each, name[5:-1])
    elif name.startswith("dict("):
        assert isinstance(value, dict)
    elif hasattr(client, name):
        kind = getattr(client, name)
        names = {key: attribute for attribute, key in kind.attribute_map.items()}
        assert set(value) <= set(names), (name, value)
        for key, each in value.items():
            check_type(client, each, kind.openapi_types[names[key]])
        kind(**{names[key]: each for key, each in value.items()})  # what is required is there, or it raises
    else:
        assert isinstance(value, {"str": str, "int": int, "bool": bool}.get(name, object)), (name, value)


CONFIG_SAID = "ClusterName             = big\nJobRequeue = 1\nRequeueExit             = {}\nSLURM_VERSION = 22.05.8\n"


@pytest.mark.parametrize(
    ("exits", "requeue", "said"),
    [
        ("(null)", "script", "fits"),
        ("(null)", "site", "PROBLEM"),
        ("7,75", "site", "fits"),
        ("75", "script", "twice"),
        ("175", "site", "PROBLEM"),
    ],
)
def test_the_doctor_says_who_queues_again(exits, requeue, said):
    lines = examine.slurm_lines(CONFIG_SAID.format(exits), EngineConfig(kind="slurm", requeue=requeue))
    assert lines[0] == "SLURM 22.05.8, cluster big"
    assert said in lines[1]


def test_the_doctor_looks_at_engines(monkeypatch, capsys):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert main(["doctor", "--engine", "local"]) == 0
    assert " processes side by side, " in capsys.readouterr().out
    code = main(["doctor", "--engine", "kubernetes"])
    said = capsys.readouterr().out
    assert code == 2
    assert "PROBLEM engine.image and engine.volume must be given" in said
    assert str(Path.cwd()) in said
