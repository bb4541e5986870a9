"""Can this process read and delete conntrack entries? Asked once, at start."""

from __future__ import annotations

from synsweep.conntrack.connection import Connection, refusal

VERB = "conntrack over netlink"


def check() -> str | None:
    """Say in one line what is missing, or None.

    Asks ctnetlink for its statistics: the kernel checks the same module and the same capability for
    it as for a dump or a delete, but walks no table. Opening the socket alone would prove nothing.
    """
    try:
        connection = Connection()
    except OSError as error:
        return str(refusal(VERB, error.errno or 0))
    try:
        number = connection.stats()
    except OSError as error:
        number = error.errno or 0
    finally:
        connection.close()
    return str(refusal(VERB, number)) if number else None
