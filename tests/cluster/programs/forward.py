"""A way to the API server that can be taken away: `forward.py --port 16443 --to 172.30.0.2:6443`.

It forwards TCP from 127.0.0.1 until standard input is closed, or it is killed; then everything that
went through it is cut off, as when the API server is killed, but for those alone who came this way.
Prints one line, {"event": "listening"}.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on what comes until it ends."""
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def main() -> None:
    """Forward until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--to", required=True)
    options = parser.parse_args()
    host, _, port = options.to.rpartition(":")

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(host, int(port))
        await asyncio.gather(pump(reader, back), pump(there, writer))

    await asyncio.start_server(forward, "127.0.0.1", options.port)
    print(json.dumps({"event": "listening"}), flush=True)  # noqa: T201
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    # Connections that are open do not keep it alive.
    with asyncio.Runner() as runner:
        runner.run(main())
