"""Question -> ranked chunks: terms and BM25, dense vectors, definitions, and the rules that combine them."""
