"""What a person sees of a run. Reads Snapshots and Summaries; runs in the supervisor's process.

live.py      while it goes on: bars and workers on a terminal, plain lines elsewhere
closing.py   at its end: what was done, where it is, what failed and why
bottleneck.py  where the time went, in a sentence
pace.py      how fast it goes, and how long still, once that is known
lines.py     sentences, commands and tables that fit a width: every table that may be piped is made by `table_lines`
tasks.py     what a model finds, in the words of its task
text.py      numbers, times and file names as they are shown
"""
