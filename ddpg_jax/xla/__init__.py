"""The same numbers, sooner: all that exists for the compiler's or the processor's sake."""
