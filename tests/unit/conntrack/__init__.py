"""Tests of synsweep.conntrack that need no kernel, and the contract that both tables keep."""
