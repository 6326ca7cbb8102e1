"""Where the rows of a run go, and what the terminal shows."""
