"""Training: a step, its losses, and the run around it; data/ is what is learned from, routers/ the routers."""
