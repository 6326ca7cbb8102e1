"""Groups as curves: exact steps, common prefixes, seeds that diverged, and that whatever is left out is said."""

import numpy as np
import pytest

from ddpg_jax.errors import ConfigError, StorageError
from ddpg_jax.runs.compare.curves import align, common_steps
from ddpg_jax.runs.compare.evaluations import NEVER, Evaluations


def evaluations(steps, *seeds, task="T", source="run", diverged=None):
    """Seeds with their returns; `diverged` by position."""
    lost = [(diverged or {}).get(i, NEVER) for i in range(len(seeds))]
    names = tuple(map(str, range(len(seeds))))
    returns, seconds = np.array(seeds, float).T, np.array(steps) / 10
    return Evaluations(source, task, np.array(steps), names, returns, np.array(lost), seconds, len(seeds))


def aligned(diverged="worst", **groups):
    """The curves of task T, and what was said."""
    said = []
    return align(groups, diverged, said.append)["T"], said


def test_equal_steps_are_kept_as_they_are_and_nothing_is_said():
    curves, said = aligned(a=[evaluations([1, 2], [3, 4], [5, 6])], b=[evaluations([1, 2], [7, 8])])
    assert curves["a"].returns.tolist() == [[3, 5], [4, 6]]
    assert curves["b"].returns.tolist() == [[7], [8]]
    assert curves["a"].at(2).tolist() == [4, 6]
    assert said == []


def test_the_shortest_run_ends_the_comparison_aloud():
    curves, said = aligned(long=[evaluations([1, 2, 3, 4], [1, 2, 3, 4])], short=[evaluations([2, 3], [5, 6])])
    assert curves["long"].steps.tolist() == [1, 2, 3]
    assert common_steps(curves).tolist() == [2, 3]
    (line,) = said
    assert "up to step 3, where short ends" in line


def test_runs_of_a_group_are_put_together_at_the_steps_that_all_have():
    """A step in between that one of them lacks is left out, not interpolated, and that is said."""
    parts = [evaluations([10, 20, 30, 40], [1, 2, 3, 4]), evaluations([10, 25, 30], [5, 0, 7], [8, 0, 9])]
    curves, said = aligned(a=parts)
    curve = curves["a"]
    assert curve.steps.tolist() == [10, 30]
    assert curve.returns.tolist() == [[1, 5, 8], [3, 7, 9]]
    assert curve.seconds.tolist() == [1, 3]
    assert curve.side_by_side == (1, 2)
    assert any("2 evaluations are left out" in line for line in said)
    assert any("seed 0" in line and "different seeds" in line for line in said)


def test_what_shares_no_step_is_refused_in_one_line():
    with pytest.raises(StorageError, match="share no step") as error:
        aligned(a=[evaluations([10, 20], [1, 2]), evaluations([11, 21], [1, 2])])
    assert "\n" not in str(error.value)
    with pytest.raises(StorageError, match="nothing to compare"):
        aligned(a=[evaluations([10], [1])], b=[evaluations([20], [1])])


def test_tasks_are_apart():
    groups = {"a": [evaluations([1, 2], [1, 2]), evaluations([5], [3], task="U")]}
    curves = align(groups, "worst", pytest.fail)
    assert {task: found["a"].steps.tolist() for task, found in curves.items()} == {"T": [1, 2], "U": [5]}


def test_a_seed_that_diverged_has_the_worst_return_of_all_from_there():
    a = evaluations([1, 2, 3], [1, 2, 3], [1, 999, 999], diverged={1: 2})
    curves, said = aligned(a=[a], b=[evaluations([1, 2, 3], [-7, 0, 4])])
    assert curves["a"].returns.tolist() == [[1, 1], [2, -7], [3, -7]]
    assert curves["a"].diverged.tolist() == [NEVER, 2]
    (line,) = said
    assert "1 of 2 seeds of run diverged, 1 (step 2)" in line
    assert "-7.0" in line


def test_a_seed_that_diverged_is_left_out_aloud():
    a = evaluations([1, 2], [1, 2], [1, 999], diverged={1: 2})
    curves, said = aligned("exclude", a=[a], b=[evaluations([1, 2], [-7, 0])])
    assert curves["a"].returns.tolist() == [[1], [2]]
    assert curves["a"].seeds == ("0",)
    (line,) = said
    assert "left out" in line
    assert "flatters a" in line


def test_a_run_that_ended_as_all_its_seeds_diverged_does_not_end_the_others():
    lost = evaluations([1, 2], [4, 99], [5, 99], diverged={0: 2, 1: 2})
    whole = evaluations([1, 2, 3, 4], [1, 2, 3, 4])
    curves, _ = aligned(a=[lost], b=[whole])
    assert curves["a"].steps.tolist() == curves["b"].steps.tolist() == [1, 2, 3, 4]
    assert curves["a"].returns.tolist() == [[4, 5], [1, 1], [1, 1], [1, 1]]
    assert np.isnan(curves["a"].seconds).tolist() == [False, False, True, True]
    curves, said = aligned("exclude", a=[lost], b=[whole])
    assert curves.keys() == {"b"}
    assert len(said) == 1


@pytest.mark.parametrize("diverged", ["worst", "exclude"])
def test_where_every_seed_diverged_nothing_is_left(diverged):
    with pytest.raises(ConfigError, match="nothing is left"):
        aligned(diverged, a=[evaluations([1], [4], diverged={0: 1})])
