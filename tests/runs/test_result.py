"""What a result tells of the machine and of the versions that it was made with."""

from ddpg_jax.runs.result import environment, other_environment


def test_how_many_devices_there_are_is_no_matter_where_one_is_used():
    now = environment()
    before = now | {"device": now["device"] | {"count": 99}}
    assert other_environment(before, lone=True) == []
    assert "count 99 ->" in other_environment(before)[0]
