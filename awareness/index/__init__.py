"""Git, text and disk: files -> chunks -> store, and question -> hits. Knows nothing of models."""
