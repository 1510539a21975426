"""What is learned from: sources of code and data sets of text, read, filtered and split."""
