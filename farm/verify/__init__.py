"""`farm verify`: recount a run's promises from its parts. Reads only; runs nothing of what it reads.

verification.py  the verdict, and what is checked in which order
part_files.py    every file in parts/ is a whole part of this run
rows.py          no image was labelled twice without cause
ending.py        the rows are as many as the last summary says
label_files.py   label files are those that the parts would give

Imported by `cli`, and by users; runs in the caller's process.
"""

from farm.verify.verification import Verification as Verification
from farm.verify.verification import verify as verify
