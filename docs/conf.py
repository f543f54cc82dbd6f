"""How Sphinx builds the site: `make docs`. Offline, and any warning is an error (Makefile, tests/test_docs.py).

Two pages have parts that are made from the code when the site is built (generated.py): the config reference from the
pydantic models, the command reference from the parser. The library reference is autodoc's.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS.parent), str(DOCS)]

import generated  # noqa: E402 - docs/generated.py

from farm.version import VERSION  # noqa: E402

project = "Farm"
version = release = VERSION
language = "en"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]
exclude_patterns: list[str] = []
nitpicky = True
nitpick_ignore_regex = [  # types of other packages: their own pages would be looked up over the network
    (r"py:.*", r"(?!farm\b).*"),
    (r"py:.*", r"farm\.(config\.types|library\.streams|core\.job|engines|sources)\..*"),
]

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3
myst_all_links_external = False

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
default_role = "code"  # docstrings write `name`, which is for people as well
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = f"Farm {VERSION}"
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_static_path = ["static"]
html_css_files = ["farm.css"]
html_theme_options = {"top_of_page_buttons": []}
pygments_style = "friendly"
pygments_dark_style = "monokai"
copybutton_exclude = ".linenos, .gp, .go"

GENERATED = re.compile(r"^<!-- generated: (\w+)((?: [\w.]+)*) -->$", re.MULTILINE)


def fill_in(app: Any, page: str, source: list[str]) -> None:
    """Replace `<!-- generated: name words -->` by what generated.py makes of the words under that name."""
    source[0] = GENERATED.sub(lambda found: generated.PARTS[found[1]](*found[2].split()), source[0])


def made_from_code(app: Any, environment: Any, added: set[str], changed: set[str], removed: set[str]) -> list[str]:
    """Pages that are made anew each time, since Sphinx does not see that the code has changed."""
    pages = environment.found_docs - removed
    return [page for page in pages if "<!-- generated: " in environment.doc2path(page).read_text(encoding="utf-8")]


def mark_code(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Indented lines of a docstring are code; reStructuredText would take them for a quotation."""
    marked: list[str] = []
    inside = False
    for line in lines:
        indented = line.startswith("    ")
        if indented and not inside and (not marked or not marked[-1].strip()):
            marked += ["::", ""]
            inside = True
        elif line.strip() and not indented:
            inside = False
        marked.append(line)
    lines[:] = marked


def setup(app: Any) -> None:
    app.connect("source-read", fill_in)
    app.connect("env-get-outdated", made_from_code)
    app.connect("autodoc-process-docstring", mark_code)
