"""What is learned from: repositories -> chunks -> samples of many kinds, and rows of plain texts."""
