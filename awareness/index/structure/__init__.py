"""Questions about the structure of code: who calls what, what is alike, what matters. Reads the code itself, by syntax.

call_graph.py      callers, callees and tests of a name: start here
code_view.py       the files of a snapshot, what holds a name and what defines it
references.py      the places of a name in a file; imports.py what it imports
resolution.py      which definition a place means; declared_types.py the classes of variables
similar_chunks.py  the chunks most like one
repository_map.py  the most important files and definitions, in a number of tokens
"""
