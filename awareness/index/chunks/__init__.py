"""The text of a file -> chunks: spans of whole lines, cut at the syntax of its language."""
