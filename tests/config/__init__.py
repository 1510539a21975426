"""Tests of awareness.config."""
