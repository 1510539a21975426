"""The sections of a YAML file, checked where they are read in."""
