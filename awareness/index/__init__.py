"""Git, text and disk: files -> chunks -> store, and question -> hits. Knows no models and never imports torch.

files/      which files of a repository are indexed, and reading them safely: start with repository.py
chunks/     the text of a file -> chunks: start with chunking.py
search/     question -> ranked chunks: start with ranking.py
structure/  who calls what, what is alike, a map: start with call_graph.py
store/      the index on disk, and its care: start with store.py
build.py    updates an index: files -> chunks -> store; renew_history.py adds what past commits tell
unicode_forms.py  one form for all forms of a word
"""
