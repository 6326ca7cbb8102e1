"""`python -m ddpg_jax` is the program `ddpg-jax`."""

from ddpg_jax.cli.main import program

if __name__ == "__main__":
    program()
