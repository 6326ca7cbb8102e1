"""What is left on disk and on the terminal: all input and output of a run."""
