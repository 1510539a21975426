"""Measurements that tell whether the memory is read."""
