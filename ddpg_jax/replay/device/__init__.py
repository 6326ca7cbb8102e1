"""Replay of the device loop: pure functions of one seed."""
