"""What programs and commands call. Imported by `cli`, `tune`, `library`, and by users.

labelling.py    `run` and `retry`: from a config to labels on disk
exporting.py    `export`: the parts of a run, projected into other formats
summarising.py  the Summary that a run returns
"""

from farm.api.exporting import export as export
from farm.api.exporting import export_all as export_all
from farm.api.labelling import retry as retry
from farm.api.labelling import run as run
from farm.engines.base import Hooks as Hooks
