"""Git, text and disk: files -> chunks -> store, and question -> hits. Knows nothing of models, and never imports torch.

files/    which files of a repository are read, and how they are read safely
chunks/   the text of a file -> chunks
search/   question -> ranked chunks
store/    the index on disk: manifest, shards of latents, packs, and their care
build.py  brings an index up to date
"""
