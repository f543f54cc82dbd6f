"""What a person sees of a run. Reads Snapshots and Summaries; runs in the supervisor's process.

live.py      while it goes on: bars and workers on a terminal, plain lines elsewhere
closing.py   at its end: what was done, where it is, what failed and why
bottleneck.py  where the time went, in a sentence
text.py      numbers, times and file names as they are shown
"""
