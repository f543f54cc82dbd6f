"""The guides in docs/guides, and the quick start, run as they are printed.

    ```bash, ```python   run, in the order of the page, in a folder with photographs, weights and shards
    ```yaml              is a config that farm takes
    ```sh, ```text       is shown only: it needs another machine, installs something, or is output

A block of Python that follows a run is started before the next block, which is the run. A block that README prints too
is left to tests/test_readme.py, if it leaves nothing behind that the page goes on with (`BY_ITSELF`).

Pages of one file are read one after the other, as a reader does, in one folder: what one of them has labelled the next
need not label again, and starts nothing for. A page alone runs as well.
"""

import re
import subprocess
import sys

from tests.support.harness import ROOT

DOCS = ROOT / "docs"
GUIDES = [*sorted((DOCS / "guides").glob("*.md")), DOCS / "quickstart.md"]
FOLDER = ("quickstart", "folder", "laptop", "worker-kinds", "cache", "resume")  # the last one moves the photographs
PROGRAMS = ("pipeline", "shards", "models")
ELSEWHERE = ("bucket", "ray")
MADE = {  # folders that a reader of a page has afterwards, with something in them
    "bucket": ["labels/labels"],
    "folder": ["runs/mine/labels", "runs/mine/parts", "labels/labels"],
    "models": ["runs/codes/parts"],
    "quickstart": ["runs/mine/labels", "runs/mine/parts"],
    "ray": ["runs/ray/labels"],
    "shards": ["runs/shards/labels", "labels"],
}
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SHOWN_ONLY = {"sh", "text"}
RUN = ("bash", "python")
BY_ITSELF = ("pipeline",)


def blocks(page, *languages):
    """(language, text) of the page's blocks of these languages, all without one, in their order."""
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [(language, text) for language, text in found if language in languages or not languages]


def page_of(name):
    (page,) = [page for page in GUIDES if page.stem == name]
    return page


def blocks_to_run(name):
    """Those of the page that no other test runs."""
    elsewhere = blocks(ROOT / "README.md", *RUN) if name in BY_ITSELF else []
    return [block for block in blocks(page_of(name), *RUN) if block not in elsewhere]


def run_page(name, folder, environ, text_of=str):
    """Run a page's blocks. `text_of`: what is typed for a block, where that cannot be just what is printed."""
    following = None
    for language, text in blocks_to_run(name):
        shell = [sys.executable, "-c"] if language == "python" else ["bash", "-euo", "pipefail", "-c"]
        command = [*shell, text_of(text)]
        if "farm.attach" in text:
            following = subprocess.Popen(command, cwd=folder, env=environ, stdout=subprocess.PIPE, text=True)
            continue
        done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{text}\n{done.stdout[-1000:]}\n{done.stderr[-2000:]}"
        if following is not None:
            assert "images labelled; 0 missed" in following.communicate(timeout=60)[0]
            following = None
    assert following is None
    assert [made for made in MADE.get(name, ()) if not any((folder / made).iterdir())] == []
