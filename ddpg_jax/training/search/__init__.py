"""Sweeps that a driver runs: what is searched, who chooses the settings, and which programs run them."""
