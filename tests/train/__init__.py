"""Tests of awareness.train."""
