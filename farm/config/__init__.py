"""The config. May be imported by every wing above it; imports `machine`, `errors` and `version` alone.

sections.py     what each key is: the pydantic models
types.py        what a value may be, with its JSON Schema
loading.py      a config from a file, from overrides or from a mapping
yaml_file.py    the file, with the line of every key
explaining.py   what is wrong with a config, in words
misspelt.py     which key was meant
keys.py         the keys that there are
json_schema.py  the JSON Schema, for editors
factories.py    where the module of a model's factory lies
"""
