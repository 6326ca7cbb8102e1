"""The command `export`: whose policy, where to, and what is said of mistakes."""

import json
import subprocess
import sys

import numpy as np
import pytest
from stored_policies import read_arrays

from ddpg_jax.cli.main import main
from ddpg_jax.runs.inference import load_run
from ddpg_jax.runs.policy import seed_policy

ARCHIVE = {"policy.safetensors", "numpy_policy.py", "golden.npz", "spec.json", "README.md"}


def spec_of(folder):
    return json.loads((folder / "spec.json").read_text())


def test_the_command_exports_and_prints_the_files(run, tmp_path, capsys):
    words = ["--seed", "9", "--which", "best", "--to", "safetensors, numpy", "--out", str(tmp_path / "out")]
    assert main(["export", str(run.directory), *words]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert {*printed} == {str(tmp_path / "out" / name) for name in ARCHIVE}
    spec = spec_of(tmp_path / "out")
    assert (spec["seed"], spec["which"]) == (9, "best")
    policy = seed_policy(load_run(run.directory, which="best"), 1)
    golden = read_arrays(tmp_path / "out" / "golden.npz")
    np.testing.assert_array_equal(golden["action"], policy(golden["obs"]))


def test_the_command_names_a_folder_after_the_run_and_its_first_seed(run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(run.directory), "--to", "safetensors"]) == 0
    (folder,) = (tmp_path / "exported").iterdir()
    assert folder.name == "run-seed-4-final"
    assert capsys.readouterr().out.splitlines()[0] == "exported/run-seed-4-final/policy.safetensors"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--seed", "1"], "the run has no seed 1; it has 4, 9"),
        (["--to", "torch"], "--to: expected safetensors, numpy, stablehlo, onnx, or several of them, came 'torch'"),
    ],
)
def test_mistakes_at_the_command_are_told_in_one_line(words, said, run, tmp_path, capsys):
    assert main(["export", str(run.directory), *words, "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == f"ddpg-jax: {said}\n"
    assert not (tmp_path / "out").exists()


def test_a_form_that_is_none_is_told_before_jax_is_imported(tmp_path):
    code = (
        "import sys\nfrom ddpg_jax.cli.main import main\n"
        "assert main(['export', 'none', '--to', 'torch']) == 2\nassert 'jax' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("ddpg-jax: --to: expected safetensors")
