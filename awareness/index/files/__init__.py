"""Which files of a repository are indexed, and reading them safely. All files are hostile until proven otherwise.

repository.py   finds a repository, lists the files to index: start here
nested.py       finds the repositories in a folder, and those inside another one
work_tree.py    lists the files on disk through git, without the repository's config
git/            reads commits without git
own/            dependencies, builds, caches, and what we wrote ourselves
patterns.py     what the user includes and ignores; scopes.py: what a typed `--scope` means
safe_read.py    reads one path
file_stat.py    whether a file has changed since it was last read
unwanted/       keys, generated and minified files
encodings/      bytes -> text
file_kinds.py   source, test, example, document or other, by the path
credentials.py  finds credentials in text
"""
