"""The index on disk: manifest, shards of latents and packs, and their care.

store.py         snapshots, files and chunks: start here
known_files.py   the files of a work tree as they were last read
latent_table.py  the latents: which exist, where they are, which are dropped
manifest.py      the SQLite schema, and opening it safely
shards.py        one file of latents; tensorfile.py reads and writes the safetensors format
layout.py        the folder of an index, and the names inside
lock.py          the one writer
check.py         finds and repairs damage
garbage.py       frees space
pack.py          a snapshot and its latents as one file
chunk_table.py   the chunks of packs and fleets as text
"""
