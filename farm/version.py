"""The version of farm: the same in a checkout and where it is installed. pyproject.toml has it too; a test compares."""

VERSION = "0.1.0"
