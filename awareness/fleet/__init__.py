"""Many repositories, encoded once on Ray into a bucket or a folder, and asked by everybody.

driver.py             a run, start here: what happens to a repository, and in which order
sources.py            the repositories that a user names; clones.py fetches one, cutting.py cuts it
encoding_worker.py    a model that encodes batches; cluster.py is Ray
latent_ledger.py      which latents the store has
run_report.py         what a run did
catalogue.py          what the store holds, and how it changes: the format begins here
repository_object.py  one repository in the store; repository_words.py the words that lead to it
object_store.py       a bucket or a folder
fleet_memory.py       asking: what a question fetches, and what is kept
collecting.py         deletes what nothing needs; checking.py finds damage
"""
