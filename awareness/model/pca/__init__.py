"""Latents of 1 KiB a token: a linear transform of each layer's keys and values, and few bits.

codec.py             latents <-> bytes: start here
tables.py            the tables of a decoder, shipped or fitted on this machine, as a file
fit.py               latents of code and the weights of their errors -> tables
answer_gradients.py  those weights: how strongly answers depend on each number
"""
