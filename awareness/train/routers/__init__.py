"""Routers that are trained on what is said about code: term vectors, and a head on hidden states."""
