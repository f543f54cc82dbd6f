"""`farm schema`."""

import json

from farm.cli import main


def test_schema_prints_json(capsys):
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "FarmConfig"
