"""Measures whether the memory is read, and how well: one file a measure, each with `measure(setup, …) -> Report`.

setup.py       what all measures need: repositories, model, readers
report.py      what every measure returns: tables, JSON, pictures
readers.py     the ways to give a model the chunks, compared by every measure
routing.py     the questions of a file, with the chunks that search finds for them
intervals.py   95 % intervals
pictures.py    drawing helpers
"""
