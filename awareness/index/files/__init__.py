"""Which files of a repository are indexed, and reading them safely. All files are hostile until proven otherwise.

repository.py   finds a repository, lists the files to index: start here
nested.py       finds the repositories in a folder, and those inside another one
work_tree.py    lists the files on disk through git, without the repository's config
git_dirs.py     finds git dirs, and which formats a repository uses
git_objects.py  follows revisions, lists the files of a commit: without git, as the next four files
git_refs.py     reads refs
reftable.py     reads refs that are in tables
object_files.py  reads loose objects and packs
random_access.py  reads parts of a file by their position
safe_read.py    reads one path
file_stat.py    whether a file has changed since it was last read
unwanted.py     files that are not worth indexing: asks the next four
secret_files.py keys and files of passwords
generated.py    what generators write at the top of a file, as top_comments.py finds it
artefacts.py    lock files, source maps, reports and the like
minified.py     code without line breaks
decoding.py     bytes -> text; git_attributes.py and declared_encoding.py: an encoding that is declared;
                legacy_encoding.py: one that is guessed, by frequent_characters.py
file_kinds.py   source, test, example, document or other, by the path
credentials.py  finds credentials in text
"""
