"""The library that every front end stands on: open, refresh, search, attach, ask. Knows neither Typer nor Rich.

engine.py      `Engine`: many questions on one model in memory
answer.py      what `Engine.ask` returns, and its JSON
corpus.py      a repository's index or a pack, opened to be searched
structure.py   callers, callees, tests, similar code and maps of what is searched
corpus_names.py  names that tell the repositories and packs of one search apart
places.py      which repositories, and which parts of them, a path means
workspace.py   a repository together with its index
indexing.py    brings the index of one repository up to date; indexing_all.py those of several
file_status.py whether a path is indexed, and if not, why not
models.py      pulls and loads decoders, and the encoders that make their latents
modes.py       how a question is read: the mode, the adapter, the model
embedders.py   which embedding model an index is searched with
reporter.py    how the library tells a front end what it is doing
"""
