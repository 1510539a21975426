"""Where a run begins, what it is compared with, and how it ends before its last step."""
