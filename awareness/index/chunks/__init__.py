"""The text of a file -> chunks: spans of whole lines, cut at the syntax of its language.

chunking.py     cuts a text into chunks, and states the rules: start here
documents.py    the readable rows of a file, and the lines they stand on
syntax.py       code -> parts, by tree-sitter
headings.py     Markdown and reStructuredText -> sections
languages.py    the language of a file, and its grammar
languages.yaml  the table of languages: add one here
"""

CHUNKER_VERSION = 2  # part of the key of stored chunks: raise it when the cuts change
