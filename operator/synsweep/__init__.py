"""synsweep removes half-open connections to backends that are gone, before their IP is used again.

Two reading stops tell what the program does: `core/staleness.py` (may this entry be deleted?) and
`node/sweep.py` (one pass over the table). Everything else feeds these two.
"""

__version__ = "0.1.0"
