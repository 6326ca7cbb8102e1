"""What a run shows of itself, and what may be asked of it."""

from importlib.util import find_spec

import numpy as np
import pytest
from tiny_run import tiny_config

import ddpg_jax as dj
from ddpg_jax.errors import Interrupted, StorageError

RECORDS = pytest.mark.skipif(find_spec("ddpg_jax.runs.record") is None, reason="records cannot be loaded as arrays yet")


def test_a_run_shows_itself_in_three_lines(run):
    lines = repr(run).splitlines()
    assert len(lines) == 3
    assert lines[0] == f"Run of Pendulum-v1, ddpg: 2 seeds, 60 steps each, in {run.directory}"
    assert lines[1].startswith("  final  mean -")
    assert lines[2].startswith("  best   mean -")
    assert all(len(line) <= 80 for line in lines[1:])


@RECORDS
def test_a_notebook_shows_the_curve_too(run):
    shown = run._repr_html_()
    assert shown.startswith("<pre>Run of Pendulum-v1")
    assert '<img alt="learning curve" src="data:image/png;base64,iVBOR' in shown


def test_what_is_shown_of_a_run_whose_files_are_gone(run, tmp_path):
    hostile = tiny_config(env={"id": "Pendulum-v1", "kwargs": {}})
    gone = run._replace(directory=tmp_path / "<b>gone</b>", config=hostile)
    assert gone._repr_html_().endswith("</pre>")
    assert "&lt;b&gt;gone" in gone._repr_html_()


@RECORDS
def test_the_metrics_and_the_curve_of_a_run(run, tmp_path):
    assert run.metrics.returns.shape == (3, 2, 3)
    np.testing.assert_array_equal(run.metrics.returns[-1], run.result["final"]["returns"])
    (axes,) = run.plot().axes
    drawn = axes.get_lines()[0].get_xydata()
    np.testing.assert_array_equal(drawn[:, 0], [25, 50, 60])
    np.testing.assert_allclose(drawn[:, 1], run.metrics.returns[:, 0].mean(1))
    with pytest.raises(StorageError):
        run._replace(directory=tmp_path / "gone").plot()


def test_the_policy_of_a_run(run):
    obs = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, -0.5]], np.float32)
    np.testing.assert_array_equal(run.policy(1)(obs), dj.load_policy(run.directory, 1)(obs))
    best = run.policy(0, which="best")(obs)
    np.testing.assert_array_equal(best, dj.load_policy(run.directory, 0, which="best")(obs))


def test_a_notebook_shows_the_message_of_an_interrupt_alone():
    assert Interrupted("to go on: ...")._render_traceback_() == ["Interrupted: to go on: ..."]
