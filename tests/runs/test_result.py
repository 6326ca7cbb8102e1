"""What a result tells of the machine and of the versions that it was made with."""

from ddpg_jax.runs.result import system_differences, system_info


def test_how_many_devices_there_are_is_no_matter_where_one_is_used():
    now = system_info()
    before = now | {"device": now["device"] | {"count": 99}}
    assert system_differences(before, single_device=True) == []
    assert "count 99 ->" in system_differences(before)[0]
