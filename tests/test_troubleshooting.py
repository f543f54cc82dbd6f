"""Each message in docs/troubleshooting.md is one that the source still has."""

import ast
import re

import pytest

from tests.support.harness import ROOT

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
MESSAGES = re.findall(r"```text\n(.*?)\n```", PAGE, re.DOTALL)
VARIABLE = re.compile(r"<[^<>]*(?:<[^<>]*)?>")  # what differs from time to time; an example may begin with a `<`
TOKEN = re.compile(r"\w+|[^\w\s]|\s+")
LEAST_MESSAGES = 60
LEAST_CHARS = 10  # of a message's longest fixed fragment: shorter ones are found by accident
LEAST_PIECE_CHARS = 5  # of what is put together from several texts of the source


def fragments(message):
    """What of a message is the same each time, one space between words."""
    found = (" ".join(text.split()).strip(" `'\",.:;()") for text in VARIABLE.split(message))
    return [text for text in found if text]


def texts_of(tree):
    """Every string of a module but its docstrings; of an f-string the pieces between its values."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    bodies = [node.body for node in ast.walk(tree) if isinstance(node, documented)]
    docstrings = {id(body[0].value) for body in bodies if body and isinstance(body[0], ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield " ".join(node.value.split())


@pytest.fixture(scope="module")
def texts():
    modules = sorted((ROOT / "farm").rglob("*.py"))
    return "\n".join(text for module in modules for text in texts_of(ast.parse(module.read_text(encoding="utf-8"))))


def missing(fragment, texts):
    """What is left of a fragment when as long pieces as there are in the source are taken from its beginning."""
    tokens = TOKEN.findall(fragment)
    while tokens:
        lengths = range(len(tokens), 0, -1)
        taken = next((n for n in lengths if "".join(tokens[:n]).strip() in texts), 0)
        piece = "".join(tokens[:taken]).strip()
        if not taken or (piece.strip(",;:") and len(piece) < LEAST_PIECE_CHARS and piece != fragment):
            return "".join(tokens)
        del tokens[:taken]
    return ""


def test_there_are_messages_enough():
    assert len(MESSAGES) >= LEAST_MESSAGES
    assert len(set(MESSAGES)) == len(MESSAGES)


@pytest.mark.parametrize("message", MESSAGES)
def test_the_source_has_the_message(message, texts):
    fixed = fragments(message)
    assert max(map(len, fixed)) >= LEAST_CHARS
    assert [left for fragment in fixed if (left := missing(fragment, texts))] == []


def test_another_wording_would_be_found(texts):
    assert missing("is being written by", texts) == ""
    assert missing("does not exist; did you mean", texts) == ""
    assert missing("is being written to by", texts) == "to by"
    assert missing("no such message was ever printed", texts)


def test_each_message_is_explained():
    for after in re.split(r"```text\n.*?\n```", PAGE, flags=re.DOTALL)[1:]:
        assert after.partition("\n## ")[0].strip()
