"""Several runs beside each other: curves, scores, intervals, as figures and tables."""
