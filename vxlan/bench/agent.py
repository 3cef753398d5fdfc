"""The process at one end of a test: `python -m vxlan.bench.agent`.

It reads one request for each line, {"op": ..., "arguments": {...}}, and writes one or
more replies, of which the last has "last": true.  It ends with its input, so that
nothing is left behind when whoever started it dies.  The other end of these lines is
in vxlan/bench/ends.py; this file stays small because a run starts many of it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, Any

from vxlan.bench.generator import LoadError, run


def serve(requests: IO[str], replies: IO[str]) -> None:
    """Answer until the requests end."""
    for line in requests:
        for reply in answers(line):
            replies.write(json.dumps(reply) + "\n")
            replies.flush()


def answers(line: str) -> Iterator[dict[str, Any]]:
    """The replies to one request; an error is a reply, too."""
    try:
        request = json.loads(line)
        for reply in run(request["op"], request["arguments"]):
            yield {**reply, "last": "port" not in reply}
    except LoadError as error:
        yield {"error": str(error), "last": True}
    except (ValueError, KeyError, TypeError) as error:
        yield {"error": f"not a request: {error}", "last": True}


if __name__ == "__main__":
    with suppress(BrokenPipeError):  # whoever asked was killed
        serve(sys.stdin, sys.stdout)
