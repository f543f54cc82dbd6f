"""What was measured is kept, also of a run that is killed."""

from benchmarks.gpu.journal import Journal, in_words, read


def test_lines_are_in_the_file_as_they_come_and_are_read_again(tmp_path, capsys):
    path = tmp_path / "gpu.jsonl"
    journal = Journal(path)
    journal.write("decode", {"images_per_s": 3878.0})
    assert [line["images_per_s"] for line in read(path)] == [3878.0], "before it ends"
    journal.write("copies", {"to_device_gb_per_s": 55.1})
    assert read(path) == journal.lines
    assert "decode: images_per_s 3878.0" in capsys.readouterr().out


def test_a_last_line_that_was_cut_off_is_left_out(tmp_path):
    path = tmp_path / "gpu.jsonl"
    path.write_text('{"step": "decode", "images_per_s": 1.0}\n{"step": "cop')
    assert [line["step"] for line in read(path)] == ["decode"]


def test_a_line_for_people_has_all_of_it():
    line = {"step": "farm", "at_s": 12.34, "stage_us": {"decode": 1900}, "main_thread": 0.47123}
    assert in_words(line) == "[ 12.3 s] farm: stage_us (decode 1900), main_thread 0.4712"
