"""The site of documentation: it builds without a warning, its links lead somewhere, and it loads nothing from the
network."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest

import farm
from farm.cli.parser import COMMANDS, EXIT_CODES
from farm.config.sections import FarmConfig
from farm.core.schema import TASKS, part_schema
from tests.support.harness import ROOT

DOCS = ROOT / "docs"
LOADED = {"img": "src", "script": "src", "iframe": "src", "source": "src", "link": "href", "use": "href"}
NOT_LOADED = {"search", "index", "next", "prev", "up", "canonical", "author", "copyright"}  # `rel` of a link


class Page(HTMLParser):
    """What a page refers to: `links` are for readers, `loads` are fetched by a browser; and its anchors."""

    def __init__(self, path):
        super().__init__()
        self.links, self.loads, self.anchors = [], [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.anchors |= {values[name] for name in ("id", "name") if values.get(name)}
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])
        if values.get(LOADED.get(tag, "")) and values.get("rel") not in NOT_LOADED:
            self.loads.append(values[LOADED[tag]])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Built as `make docs` builds it."""
    pytest.importorskip("sphinx")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-n", "-q", "-E"]
    done = subprocess.run(
        [*command, "-d", folder / "doctrees", DOCS, folder / "html"], capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder / "html"


@pytest.fixture(scope="module")
def pages(site):
    return {path: Page(path) for path in site.rglob("*.html")}


def test_make_builds_it_as_this_test_does():
    assert "sphinx -b html -W --keep-going -n -q" in (ROOT / "Makefile").read_text(encoding="utf-8")


@pytest.mark.timeout(300)
def test_every_link_inside_leads_somewhere(site, pages):
    assert len(pages) > 20
    lost = []
    for path, page in pages.items():
        for link in page.links + page.loads:
            target = urlsplit(link)
            if target.scheme or target.netloc:
                continue
            file = (path.parent / unquote(target.path)).resolve() if target.path else path
            anchor = unquote(target.fragment)
            if not file.is_file() or (anchor and file in pages and anchor not in pages[file].anchors):
                lost.append(f"{path.relative_to(site)}: {link}")
    assert lost == []


@pytest.mark.timeout(300)
def test_no_page_loads_anything_from_the_network(site, pages):
    fetched = [load for page in pages.values() for load in page.loads if re.match(r"(\w+:)?//", load)]
    assert fetched == []
    for style in [*site.rglob("*.css"), *site.rglob("*.svg")]:
        text = style.read_text(encoding="utf-8")
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", text), style
        assert not re.search(r"(href|src)=[\"'](https?:)?//", text), style


def test_every_page_is_in_the_contents(site):
    """Those that are not would be a warning, too; this says which."""
    pages = {path.relative_to(DOCS).with_suffix("") for path in DOCS.rglob("*.md")}
    assert {page for page in pages if not (site / page).with_suffix(".html").is_file()} == set()


@pytest.mark.timeout(300)
def test_everything_that_can_be_set_or_typed_is_there(site, pages):
    anchors = {path.relative_to(site).as_posix(): page.anchors for path, page in pages.items()}
    for name, field in FarmConfig.model_fields.items():
        keys = [f"{name}.{key}" for key in getattr(field.annotation, "model_fields", {})] or [name]
        assert {f"confval-{key}" for key in keys} <= anchors["reference/config.html"]
    commands = (site / "reference" / "commands.html").read_text(encoding="utf-8")
    assert [name for name in COMMANDS if f">farm {name}<" not in commands] == []
    public = {f"farm.{name}" for name in farm.__all__ if name != "__version__"}
    documented = (site / "reference" / "library.html").read_text(encoding="utf-8")
    assert {name for name in public if name not in documented} == set()


def test_every_exit_code_is_explained():
    page = (DOCS / "reference" / "commands.md").read_text(encoding="utf-8")
    explained = [code for row in re.findall(r"^\| (\d[\d, ]*) \|", page, re.MULTILINE) for code in row.split(", ")]
    assert explained == re.findall(r"\d+", EXIT_CODES)


def test_every_column_and_field_is_explained():
    page = (DOCS / "reference" / "run_directory.md").read_text(encoding="utf-8")
    explained = set(re.findall(r"`(\w+)`", page.partition("## Columns of a part")[2].partition("Their types")[0]))
    assert {name for task in TASKS for name in part_schema(task).names} <= explained
