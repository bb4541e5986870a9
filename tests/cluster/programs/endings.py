"""The conntrack oracle: every TCP entry that ends on this node, as conntrack(8) prints it.

It sees the ends of entries only that were made while `nf_conntrack_events` was 1 or a listener was
there. Lines: {"event": "listening"}, then {"t": monotonic seconds, "ended": the line}. A line has
the state and the seconds the entry had left, and `[USERSPACE]` if a netlink message ended it. Ends
with its standard input.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time

COMMAND = ("conntrack", "-E", "-e", "DESTROY", "-p", "tcp", "-o", "id", "-b", "8388608")


def main() -> None:
    """Print until standard input is closed."""
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as listener:

        def end() -> None:
            while os.read(0, 4096):
                pass
            listener.kill()

        threading.Thread(target=end, daemon=True).start()
        time.sleep(0.3)  # conntrack(8) does not say when it listens
        print(json.dumps({"event": "listening"}), flush=True)  # noqa: T201
        assert listener.stdout is not None
        for line in listener.stdout:
            told = {"t": time.monotonic(), "ended": line.decode().strip()}
            print(json.dumps(told), flush=True)  # noqa: T201
        assert listener.stderr is not None
        said = listener.stderr.read().decode()
    if listener.returncode > 0:  # e.g. its buffer ran over: a blind oracle must say so
        print(json.dumps({"event": "blind", "why": said[-500:]}), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
