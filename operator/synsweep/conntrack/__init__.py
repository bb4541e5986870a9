"""The kernel's conntrack table of the network namespace that this process runs in.

The only package that imports pyroute2. It lists entries, deletes one judged entry at a time, tells
when the node's ruleset changed, and which addresses the node has. It decides nothing.
"""
