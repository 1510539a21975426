"""What depends on the question: which chunks and lines are read, and which line an answer rests on.

question_reading.py  a memory -> the memory that the question reads: start here
chunk_choice.py      the best chunks by the question's attention
recompute.py         lines that are computed again, together
token_lines.py       which line of its chunk each token is in
line_attention.py    attention to tokens -> attention to lines
evidence_lines.py    attention and words -> the probability that a sentence rests on a line
"""
