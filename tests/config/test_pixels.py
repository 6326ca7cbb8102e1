"""The tables for pictures: what one brings with it, what does not go together, and how a change is named."""

import pytest

from ddpg_jax.config.diff import compare
from ddpg_jax.config.load import load_config
from ddpg_jax.config.pixels import EncoderConfig
from ddpg_jax.errors import ConfigError

PIXELS = {"env": {"pixels": {}}}
DRQV2 = {"algorithm": {"name": "drqv2"}}
DEVICE = {"id": "jax:pendulum"}


def test_an_environment_with_pictures_brings_an_encoder_unless_one_is_given():
    assert load_config().algorithm.encoder is None
    assert load_config(**PIXELS).algorithm.encoder == EncoderConfig()
    given = load_config(**PIXELS, algorithm={"name": "td3", "encoder": {"kind": "small"}})
    assert given.algorithm.encoder == EncoderConfig(kind="small")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            PIXELS | {"replay": {"kind": "hindsight"}},
            r'replay.kind = \S+ .*finds no goals in pictures: set it to "unif',
        ),
        (PIXELS | {"replay": {"capacity": 64}, "algorithm": {"batch_size": 4}}, ""),
        (
            {
                "env": {"pixels": {"stack": 8}, "num_envs": 4},
                "replay": {"capacity": 30},
                "algorithm": {"batch_size": 4},
            },
            r"replay.capacity = 30 .*holds no stack of 8 pictures and the next, of 4 environments: set it to 36",
        ),
        (
            {"env": {"pixels": {}, "wrappers": [{"name": "HideVelocities"}]}},
            "'HideVelocities' has no effect with env.pixels",
        ),
        ({"env": DEVICE | {"pixels": {"camera": 1}}}, "camera = 1 .*has no cameras: leave it out"),
        ({"env": {"pixels": {"draw": "each"}}}, '"each" has no effect with env.pixels.repeat=1'),
        ({"env": {"pixels": {"camera": True}}}, "env.pixels.camera = True .*must be a number, not bool"),
        ({"env": {"pixels": {"size": 7}}}, "env.pixels.size = 7 .*greater than or equal to 8"),
        (PIXELS | {"algorithm": {"memory": {}}}, "memory and encoder do not go together yet"),
        (PIXELS | {"algorithm": {"normalize_observations": True}}, "normalize_observations has no effect on pictures"),
        (PIXELS | {"algorithm": {"encoder": {"shift": 0, "online_copies": 2}}}, "have no effect with encoder.shift=0"),
        (
            PIXELS | {"algorithm": {"normalization": "batch", "encoder": {"target_copies": 2}}},
            'normalization="batch" is not possible with several copies',
        ),
        (
            DRQV2 | {"exploration": {"kind": "ou"}},
            'exploration.kind = \'ou\' .*must be "gaussian" with algorithm.name="dr',
        ),
        (
            DRQV2 | {"exploration": {"sigma": 0.1, "schedule": "inverse_episode"}},
            "exploration.schedule = 'inverse_episode' .*updates have no episode",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(values, message):
    if not message:
        load_config(**values)
        return
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(**values)
    assert "1 mistake in the configuration" in str(caught.value)


def test_a_camera_is_a_number_or_a_name():
    for camera in (2, "side", None):
        assert load_config(env={"pixels": {"camera": camera}}).env.pixels.camera == camera


def test_a_table_that_is_put_in_is_named_by_one_field():
    without, with_pictures = load_config(), load_config(**PIXELS)
    assert [change.path for change in compare(without, with_pictures)] == ["algorithm.encoder.kind", "env.pixels.size"]
    other = load_config(env={"pixels": {"gray": True}}, algorithm={"encoder": {"channels": 8}})
    assert {change.path for change in compare(with_pictures, other)} == {
        "algorithm.encoder.channels",
        "env.pixels.gray",
    }
