"""The DaemonSet's program: it watches cleanups, sweeps this node's table and reports.

`sweep.py` is the place to start reading: one pass over the table. `loop.py` decides when to make
one, `cleanups.py` holds what is to be swept for, `reporting.py` tells the API server what was done,
`run.py` puts the parts together. Nothing here talks to the kernel or the API server but through
`conntrack` and `cluster`, and it writes nothing but its own ConntrackNode.
"""
