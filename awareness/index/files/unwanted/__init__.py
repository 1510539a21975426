"""Files that are not worth indexing: the verdict depends on the path and the bytes only.

unwanted.py      asks the others: start here
secret_files.py  keys and files of passwords
generated.py     what generators write at the top of a file
top_comments.py  the comments at the top of a file, in each language
artefacts.py     lock files, source maps, reports and the like
minified.py      code without line breaks
"""
