"""Lines that fit: nothing that is copied is broken, nothing is cut."""

import shlex

import pytest

from farm.report.lines import command_lines, prose_lines, table_lines

COMMAND = "farm run source=/a/long/path/to/images 'model.args={boxes: 1, pixels: true}' output=runs/a model=yolo26n.pt"
TITLES = ("worker", "pin", "threads", "decoders")
ROWS = [("0", "cpu " + ",".join(map(str, range(40))), "20", "1"), ("1", "cpu 41", "20", "1")]


@pytest.mark.parametrize("width", [20, 60, 80])
def test_a_command_is_broken_between_words_and_can_be_pasted(width):
    lines = command_lines(COMMAND, width)
    assert all(line.endswith(" \\") for line in lines[:-1]) and len(lines) > 1
    assert shlex.split(" ".join(line.removesuffix("\\") for line in lines)) == shlex.split(COMMAND)
    assert all(len(line) <= width or len(shlex.split(line.removesuffix("\\"))) == 1 for line in lines)


def test_a_log_has_a_command_in_one_line():
    assert command_lines(COMMAND, None) == ["  " + COMMAND]
    assert command_lines("farm run 'unclosed", 10) == ["  farm \\", "    run \\", "    'unclosed"]


def test_prose_breaks_at_spaces_alone():
    text = "workers wait for images; use model.decode=reduced, or model.backend=onnxruntime for a new output"
    lines = prose_lines(text, 30)
    assert [word for line in lines for word in line.split()] == text.split()
    assert max(map(len, lines)) <= 32 and prose_lines("", 30) == [""]


@pytest.mark.parametrize("width", [44, 60, 80, 200])
def test_a_table_fits_and_holds_everything(width):
    lines = table_lines(TITLES, ROWS, width, right=["worker", "threads", "decoders"], gives_way=["pin"])
    assert max(map(len, lines)) <= width
    assert lines[0].split() == list(TITLES), "no head is cut"
    assert len(lines) == 3 or width < 200
    assert "".join(lines).replace(" ", "").count("38,39") == 1 and "…" not in "".join(lines)


def test_a_table_that_is_too_wide_is_blocks():
    lines = table_lines(TITLES, ROWS[1:], 24, gives_way=["pin"])
    assert lines == ["worker    1", "pin       cpu 41", "threads   20", "decoders  1"]
