"""Question -> ranked chunks: terms and BM25, dense vectors, definitions, and the rules that combine them.

ranking.py        combines everything into hits with scores: start here
question.py       a question as the search reads it; terms.py splits text into terms
priors.py         what a hit is, and how much that counts
evidence.py       how likely it is that the repository answers
routing_index.py  the three tables below, filled together
postings.py       terms -> chunks, and their BM25; bm25.py computes the scores
dense_vectors.py  the vectors of chunks, and the nearest to a question
definitions.py    names -> the chunks that define them; defining_lines.py tells it from a text
history.py        the messages of past commits, and the files that these changed
term_vectors.py   terms -> a vector, from router.safetensors

Questions about structure read the code itself:

call_graph.py      callers, callees and tests of a name: start here
code_view.py       the files of a snapshot, what holds a name and what defines it
references.py      the places of a name in a file, by syntax; imports.py what it imports
resolution.py      which definition a place means; declared_types.py the classes of variables
similar_chunks.py  the chunks most like one
repository_map.py  the most important files and definitions, in a number of tokens
"""
