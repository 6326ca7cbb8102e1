"""Lanes of several loops side by side, with numbers worked out by hand."""

import numpy as np
import pytest

from ddpg_jax.errors import StorageError
from ddpg_jax.training.sweep.join import join_lanes, join_records
from ddpg_jax.types import Snapshot

CHOSEN = [(1, 0), (0, 1), (0, 0)]


def snapshot(lanes, iteration=7):
    """Of lanes with these numbers: arrays, and two rows of which those that begin an episode have an entry more."""
    number = np.array(lanes)

    def read(start, stop):
        rows = np.arange(start, stop)[:, None] + 10 * number
        begins = rows % 3 == 0
        return {"rows/obs": rows, "rows/begins": begins, "rows/firsts@begins": 100 + rows[begins]}

    return Snapshot({"iteration": np.int64(iteration), "lane/step": number}, 5, 7, read, {})


def test_arrays_and_rows_are_those_of_the_chosen_lanes():
    joined = join_lanes([snapshot([1, 2]), snapshot([3, 4])], CHOSEN)
    assert joined.arrays["lane/step"].tolist() == [3, 2, 1]
    assert (joined.arrays["iteration"], joined.first_row, joined.stop_row) == (7, 5, 7)
    rows = joined.read_rows(5, 7)
    assert rows["rows/obs"].tolist() == [[35, 25, 15], [36, 26, 16]]
    assert rows["rows/begins"].tolist() == [[False, False, True], [True, False, False]]
    assert rows["rows/firsts@begins"].tolist() == [115, 136]


@pytest.mark.parametrize(
    "other",
    [
        snapshot([3], 8),
        snapshot([3])._replace(stop_row=6),
        snapshot([[3, 3]]),
        snapshot([3])._replace(arrays={"iteration": np.int64(7)}),
    ],
)
def test_lanes_of_another_step_or_structure_are_refused(other):
    with pytest.raises(StorageError, match="not of the same step, or not of one structure"):
        join_lanes([snapshot([1, 2]), other], CHOSEN)


def test_rows_of_the_record_are_in_the_order_of_one_sweep():
    def rows(combination, *told):
        return [{"combination": combination, "event": event, "seed": 0, "step": step} for step, event in told]

    one = [*rows(0, (10, "episodes"), (10, "update")), *rows(1, (10, "update")), *rows(0, (10, "evaluation"))]
    one += [*rows(1, (10, "evaluation")), *rows(1, (10, "mine")), *rows(1, (20, "update"))]
    other = [*rows(0, (10, "update"), (10, "evaluation")), *rows(0, (20, "update"))]
    found = [(row["combination"], row["event"], row["step"]) for row in join_records([one, other], [(1, 0), (0, 1)])]
    assert found == [
        (0, "update", 10), (1, "update", 10), (0, "evaluation", 10), (1, "evaluation", 10), (1, "mine", 10),
        (0, "update", 20), (1, "update", 20),
    ]  # fmt: skip
