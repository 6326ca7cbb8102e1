"""`python -m ddpg_jax` is the program `ddpg-jax`."""

from ddpg_jax.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
