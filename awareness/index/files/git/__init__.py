"""Git dirs, refs and objects, read without git: a repository's files are hostile until proven otherwise.

git_dirs.py       finds git dirs, and which formats a repository uses
git_objects.py    follows revisions, lists the files of a commit: start here
past_commits.py   follows the history of a commit, and compares trees
git_refs.py       reads refs
reftable.py       reads refs that are in tables
object_files.py   reads loose objects and packs
random_access.py  reads parts of a file by their position
"""
