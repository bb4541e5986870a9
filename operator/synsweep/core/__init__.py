"""Decisions: values in, values out.

No I/O, no clock, no log, no randomness, and no library but the standard one: the import contract in
pyproject.toml checks it. Time is an argument, in seconds of the caller's monotonic clock, unless a
name says otherwise. Only the `read_*` and `from_wire` functions ever see a dict.
"""
