"""Which files of a repository are read, and how each is read safely. All files are hostile until proven otherwise."""
