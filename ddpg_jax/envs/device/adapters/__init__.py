"""Environments of other packages that are written in JAX."""
