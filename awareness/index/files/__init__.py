"""Which files of a repository are indexed, and reading them safely. All files are hostile until proven otherwise.

repository.py   finds a repository, lists the files to index: start here
nested.py       finds the repositories in a folder, and those inside another one
work_tree.py    lists the files on disk through git, without the repository's config
git_objects.py  reads refs, commits, trees and blobs without git
safe_read.py    reads one path
file_stat.py    whether a file has changed since it was last read
unwanted.py     files that are not worth indexing, by their name or their content
decoding.py     bytes -> text
file_kinds.py   source, test, example, document or other, by the path
credentials.py  finds credentials in text
"""
