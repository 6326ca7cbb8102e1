"""What docs/adding_a_variant.md says runs as it stands, and is short."""

import re
from pathlib import Path

import numpy as np
import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "adding_a_variant.md").read_text()
CODE, RUNS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_a_variant_has_fewer_than_forty_lines():
    assert len([line for line in CODE.splitlines() if line.strip()]) < 40


def test_the_variant_on_the_page_runs(capsys):
    """Shorter, and with smaller networks."""
    short = CODE.replace("total_steps=12_000", 'total_steps=600, algorithm={"hidden": [8]}')
    assert short != CODE
    names = {}
    exec(compile(short, "adding_a_variant.md", "exec"), names)  # noqa: S102
    assert names["history"].returns.shape == (4, 1, 10)
    assert np.isfinite(names["history"].metrics["critic_loss"]).all()
    assert names["states"].step.tolist() == [100] * 4
    assert names["states"].params.critic["params"]["Dense_1"]["kernel"].shape == (4, 1, 8, 25)
    assert len(capsys.readouterr().out.splitlines()) == 4


@pytest.mark.slow
def test_the_variant_on_the_page_has_runs_on_half_cheetah(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(CODE.split("config = ")[0], "adding_a_variant.md", "exec"), names)  # noqa: S102
    short = RUNS.replace("total_steps=20_000", 'total_steps=600, algorithm={"hidden": [8, 8], "warmup_steps": 300}')
    assert short != RUNS
    exec(compile(short, "adding_a_variant.md", "exec"), names)  # noqa: S102
    assert names["returns"].shape == (2, 5)
    assert names["run"].result["algorithm"].endswith(":qr_ddpg")


@pytest.mark.slow
def test_the_variant_on_the_page_learns():
    """At least three of its four seeds solve Pendulum."""
    names = {}
    exec(compile(CODE, "adding_a_variant.md", "exec"), names)  # noqa: S102
    final = names["history"].returns[:, -1].mean(-1)
    assert np.median(final) > -200
    assert (final > -250).sum() >= 3
