"""What `farm` says to a first word that is no command."""

import pytest

from farm.cli.main import main
from farm.cli.parser import COMMANDS


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("runn", "farm: farm has no command 'runn'; did you mean run?\n"),
        ("chek", "farm: farm has no command 'chek'; did you mean check?\n"),
        ("source=images", "farm: farm has no command 'source=images'; to label images: farm run source=images ...\n"),
        ("moon", "farm: farm has no command 'moon'; there are " + ", ".join(COMMANDS) + "\n"),
    ],
)
def test_what_is_no_command_is_told_the_nearest(word, said, capsys):
    assert main([word, "--whatever", "x=y"]) == 2
    assert capsys.readouterr().err == said


def test_a_config_is_no_command(tmp_path, capsys):
    path = tmp_path / "config.yaml"
    path.touch()
    assert main([str(path)]) == 2
    assert f"farm run {path} ..." in capsys.readouterr().err
