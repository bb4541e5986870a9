"""Tests of the decisions: no I/O, no mocks; `samples` and `world` hold what several files use."""
