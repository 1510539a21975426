"""Question -> ranked chunks: terms and BM25, dense vectors, definitions, and the rules that combine them.

ranking.py        combines everything into hits with scores: start here
question.py       a question as the search reads it; terms.py splits text into terms; mentions.py finds places of
                  code in it, messages.py the code that printed it, glossary.py its words in English
                  (question_languages.py tells its language), known_names.py names that it means
candidates.py     the chunks that may answer it
priors.py         how much a kind of hit counts; hit_kinds.py tells old versions by what lies beside them
evidence.py       how likely it is that the repository answers
routing_index.py  the three tables below, filled together
postings.py       terms -> chunks, and their BM25; bm25.py computes the scores
dense_vectors.py  the vectors of chunks, and the nearest to a question
definitions.py    names -> the chunks that define them; defining_lines.py tells it from a text
history.py        the messages of past commits, and the files that these changed
term_vectors.py   terms -> a vector, from router.safetensors
"""
