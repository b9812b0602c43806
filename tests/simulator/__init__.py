"""Simulates clients, a broker and workers around the real admission, in virtual time, and holds the goals to it.

`python -m tests.simulator` prints every case. `cases` has their tables, `test_goals` runs the short ones.
"""
