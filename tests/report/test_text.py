"""Numbers and file names as they are shown."""

from farm.report.text import counted, in_seconds, printable, rate


def test_printable_escapes_what_a_terminal_would_obey():
    assert printable("a\x1b]0;x\x07\r\udcff") == r"a\x1b]0;x\x07\r\udcff"
    assert printable("ünïcödé 图") == "ünïcödé 图"


def test_numbers_as_people_read_them():
    assert [counted(1, "image"), counted(1234, "image"), counted(0, "label")] == [
        "1 image",
        "1,234 images",
        "0 labels",
    ]
    assert [rate(-0.0), rate(-1e-9), rate(99.94), rate(1234.5)] == ["0.0", "0.0", "99.9", "1,234"]
    assert [in_seconds(0.04), in_seconds(12.34), in_seconds(61.2)] == ["0.0 s", "12.3 s", "0:01:01"]
