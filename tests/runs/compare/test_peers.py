"""Curves of other programs are read as they are, or refused in a line that says why."""

import numpy as np
import pytest
from recorded_runs import evaluation_rows

from ddpg_jax.errors import ConfigError, DdpgJaxError, StorageError
from ddpg_jax.runs.compare.evaluations import NEVER, read_run
from ddpg_jax.runs.compare.peers import Peer, parse_peer, read_peer
from ddpg_jax.runs.loggers.tensorboard import TensorBoard

ROWS = "step,seed,return\n10,a,1.5\n20,a,2.5\n10,b,-1\n20,b,3\n"


@pytest.fixture
def read(tmp_path):
    """`(text) -> Evaluations` of a CSV file."""

    def read(text):
        (tmp_path / "peer.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_peer(parse_peer(f"peer={tmp_path / 'peer.csv'}"), "T")

    return read


def test_seeds_and_steps_are_those_of_the_file(read):
    found = read(ROWS)
    assert found.seeds == ("a", "b")
    assert found.steps.tolist() == [10, 20]
    assert found.returns.tolist() == [[1.5, -1.0], [2.5, 3.0]]
    assert np.isnan(found.seconds).all()
    assert found.at_once == 1


def test_columns_may_stand_anywhere_in_any_case_among_others(read):
    found = read("\ufeffother,Return,SECONDS,Step\nx,5,1.5,2e1\ny,4,0.5,10\n\n")
    assert found.steps.tolist() == [10, 20]
    assert found.returns.tolist() == [[4.0], [5.0]]
    assert found.seconds.tolist() == [0.5, 1.5]


def test_a_return_that_is_not_finite_is_of_a_seed_that_diverged(read):
    assert read("step,return,seed\n10,1,0\n10,1,1\n20,nan,0\n20,2,1\n30,1,0\n30,2,1\n").diverged.tolist() == [20, NEVER]


def test_steps_that_not_every_seed_has_are_left_out_here(read):
    assert read("step,return,seed\n10,1,0\n20,1,0\n20,2,1\n").steps.tolist() == [20]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "must name the columns"),
        ("step,reward\n1,2\n", "must name the columns step and return"),
        ("step,return\n", "no row follows"),
        ("step,return\n1,x\n", "line 2: step, return and seconds must be numbers"),
        ("step,return\n1\n", "line 2: "),
        ("step,return\n1.5,1\n", "line 2: step 1.5 is not a whole number"),
        ("step,return\n1,1\n1,2\n", "line 3: step 1 of seed 0 is there twice; is a column seed missing"),
        ("step,return,seed\n1,1,a\n2,2,b\n", "share no step"),
        (b"step,return\n1,\xff\n", "is no CSV file"),
    ],
)
def test_what_is_no_curve_is_refused_in_one_line(read, text, why):
    with pytest.raises(StorageError, match=why) as error:
        read(text)
    assert "\n" not in str(error.value)


def test_names_tasks_files_and_tags_are_told_apart(tmp_path):
    (tmp_path / "a:b").mkdir()
    path = tmp_path / "a:b"
    assert parse_peer(f"x={path}") == Peer("x", None, path, None)
    assert parse_peer(f"x y@T-v1={path}:eval/mean") == Peer("x y", "T-v1", path, "eval/mean")
    for text in ("x", "=f", "x=", f"@T={path}", f"x={tmp_path}/none:tag"):
        with pytest.raises(ConfigError, match="--peer"):
            parse_peer(text)


def test_our_event_files_are_what_our_record_is(run):
    """Rounded to float32; a folder of folders has a seed in each, one of event files is one."""
    ours = read_run(run.directory)
    theirs = read_peer(Peer("p", None, run.directory / "tensorboard", None), "T")
    assert theirs.steps.tolist() == ours.steps.tolist()
    assert theirs.seeds == ("seed-4", "seed-9")
    np.testing.assert_array_equal(theirs.returns, ours.returns.astype(np.float32))
    one = read_peer(Peer("p", None, run.directory / "tensorboard" / "seed-9", "evaluation/mean_return"), "T")
    np.testing.assert_array_equal(one.returns[:, 0], theirs.returns[:, 1])
    assert (np.diff(one.seconds) > 0).all()


def test_what_a_restart_purges_is_not_read(tmp_path):
    for purge, steps, returns in ((None, [1, 2, 3], [[1], [2], [3]]), (2, [2], [[20]])):
        board = TensorBoard(tmp_path / "events", purge)
        board.write(evaluation_rows(steps, [0], returns))
        board.close()
    found = read_peer(Peer("p", None, tmp_path / "events", None), "T")
    assert found.steps.tolist() == [1, 2]
    assert found.returns[:, 0].tolist() == [1.0, 20.0]


def test_event_files_without_the_scalar_name_those_that_are_there(run, tmp_path):
    folder = run.directory / "tensorboard"
    with pytest.raises(
        ConfigError, match=r"no scalar 'eval/x'; name one, as FILE:TAG; there are: .*update/critic_loss"
    ):
        read_peer(Peer("p", None, folder, "eval/x"), "T")
    with pytest.raises(StorageError, match="holds no event files"):
        read_peer(Peer("p", None, tmp_path, None), "T")
    (tmp_path / "peer.csv").write_text(ROWS)
    with pytest.raises(DdpgJaxError, match="a CSV file has no tags"):
        read_peer(Peer("p", None, tmp_path / "peer.csv", "tag"), "T")
