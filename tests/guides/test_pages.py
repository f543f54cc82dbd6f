"""All guides: nothing in them is left unread by the tests."""

import re

import pytest
import yaml

from farm.config.loading import from_mapping
from tests.guides.pages import (
    BY_ITSELF,
    ELSEWHERE,
    FOLDER,
    GUIDES,
    PROGRAMS,
    RUN,
    SHOWN_ONLY,
    blocks,
    blocks_to_run,
    page_of,
)


def test_every_page_with_something_to_run_is_run():
    assert sorted((*FOLDER, *PROGRAMS, *ELSEWHERE)) == sorted(page.stem for page in GUIDES if blocks(page, *RUN))


def test_what_readme_runs_is_not_run_twice():
    assert all(len(blocks_to_run(name)) < len(blocks(page_of(name), *RUN)) for name in BY_ITSELF)


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_configs_are_configs(page):
    for _, text in blocks(page, "yaml"):
        from_mapping(yaml.safe_load(text))


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_blocks_are_of_a_kind(page):
    assert {language for language, _ in blocks(page)} <= {*RUN, "yaml", *SHOWN_ONLY}
    fences = re.findall(r"^```", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(fences) == 2 * len(blocks(page))
