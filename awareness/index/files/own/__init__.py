"""What of a work tree is its own code, and what is other people's, made by a tool, or written by us.

own_code.py   divides the paths that git lists: start here
folders.py    finds the folders of dependencies, builds and caches
foreign.py    judges one folder, by what lies in it and beside it
own_files.py  indexes, packs, reports and pictures of awareness
"""
