"""`farm schema`: the JSON Schema of the config."""

from __future__ import annotations

import argparse
import json


def configure(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(prints=True)
    parser.epilog = (
        "in an editor with yaml-language-server: `farm schema > farm.schema.json`, and begin the config with\n"
    )
    parser.epilog += "# yaml-language-server: $schema=farm.schema.json"
    parser.formatter_class = argparse.RawDescriptionHelpFormatter


def execute(args: argparse.Namespace) -> int:
    from farm.config.json_schema import json_schema

    print(json.dumps(json_schema(), indent=2))
    return 0
