"""Tests of synsweep.cluster over real HTTP on the loopback interface."""
