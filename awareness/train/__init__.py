"""Training: data, losses, and the loops that `awareness train` runs."""
