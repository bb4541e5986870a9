"""Tests of synsweep.controller: real parts, a clock of the test, cleanups in memory."""
