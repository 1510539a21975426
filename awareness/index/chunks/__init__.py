"""The text of a file -> chunks: spans of whole lines, cut at the syntax of its language.

chunking.py     cuts a text into chunks, and states the rules: start here
documents.py    the readable rows of a file, and the lines they stand on
syntax.py       code -> parts, by tree-sitter
headings.py     Markdown, reStructuredText, AsciiDoc, Org -> sections
components.py   Vue, Svelte, Astro, HTML -> scripts, markup, styles
notebooks.py    Jupyter notebooks -> the source of their cells
data_files.py   large files of data -> the lines that show how they are made
long_lines.py   lines of data -> their start, and a remark
embedded.py     code inside another text -> parts
outline.py      code of a language without a grammar -> parts, at the lines that define something
languages.py    the language of a file, and its grammar
languages.yaml  the table of languages: add one here
"""

CHUNKER_VERSION = 2  # part of the key of stored chunks: raise it when the cuts change
