"""Bytes -> text, everywhere the same way.

decoding.py             decides the encoding of a file: start here
declared_encoding.py    what a file declares
git_attributes.py       what `.gitattributes` declares
legacy_encoding.py      guesses by the characters, which frequent_characters.py lists
"""
