"""Replay of the host loop: NumPy, all seeds in one array, written in place."""
