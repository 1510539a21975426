"""Training: the step, its losses, and the run. `data/` reads sources and data sets, `samples/` makes the questions."""
