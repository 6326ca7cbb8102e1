"""Pictures are written for every number of seeds and evaluations."""

import numpy as np
import pytest
from matplotlib import pyplot as plt

from ddpg_jax.runs.plots import learning_curve


@pytest.mark.parametrize(("seeds", "evaluations"), [(1, 1), (1, 4), (5, 1), (5, 4), (2, 2)])
def test_a_learning_curve_is_a_picture(tmp_path, seeds, evaluations):
    returns = np.random.default_rng(0).normal(-500, 100, (evaluations, seeds))
    path = tmp_path / "learning_curve.png"
    learning_curve(path, np.arange(1, evaluations + 1) * 1000, returns, "Pendulum-v1, ddpg")
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    picture = plt.imread(path)
    assert picture.shape[0] > 400
    assert picture.shape[1] > 600
    assert len(np.unique(picture.reshape(-1, picture.shape[2]), axis=0)) > 50  # something is drawn
    assert plt.get_fignums() == []  # and the figure is closed


def test_what_is_drawn_is_what_was_given(tmp_path):
    """Equal returns give equal pictures, others give others."""

    def picture(name, shift):
        learning_curve(tmp_path / name, np.array([1, 2]), np.array([[0.0, 1.0], [2.0, 3.0 + shift]]), "title")
        return plt.imread(tmp_path / name)

    first = picture("a.png", 0.0)
    np.testing.assert_array_equal(first, picture("b.png", 0.0))
    assert (first != picture("c.png", 5.0)).any()
