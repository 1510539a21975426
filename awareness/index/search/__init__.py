"""Question -> ranked chunks: terms and BM25, dense vectors, definitions, and the rules that combine them.

ranking.py        combines everything into hits with scores: start here
routing_index.py  the three tables below, filled together
postings.py       terms -> chunks, and their BM25; bm25.py computes the scores
dense_vectors.py  the vectors of chunks, and the nearest to a question
definitions.py    names -> the chunks that define them
terms.py          text -> terms
term_vectors.py   terms -> a vector, from router.safetensors
"""
