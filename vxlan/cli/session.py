"""Talk to running nodes, and turn what goes wrong into a `Failure`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vxlan.cli.errors import FAILED, NOT_RUNNING, USAGE, Failure

if TYPE_CHECKING:
    from vxlan.api import Chunks
    from vxlan.sight import Seen


def running() -> list[str]:
    """Names of the nodes that run here, sorted."""
    from vxlan import api

    return sorted(api.running())


def choose(name: str | None) -> str:
    """The node that is meant: the named one, or the only one that runs.

    The path of a configuration names the node that `pyvxlan up PATH` made; the path of
    a control socket names the node that listens there, as those of labs do.
    """
    if name and "/" in name and name.endswith(".sock"):
        return name
    if name:
        return Path(name).stem if "/" in name or name.endswith(".toml") else name
    nodes = running()
    if not nodes:
        _refuse_closed_sockets()
        raise Failure("no node runs here: start one with `pyvxlan up`", NOT_RUNNING)
    if len(nodes) > 1:
        raise click.UsageError(
            f"several nodes run ({', '.join(nodes)}): name the one you mean",
            click.get_current_context(silent=True),
        )
    return nodes[0]


_OTHER = "does it run another version?"


def _refuse_closed_sockets() -> None:
    """Tell "none runs" from "none that you may talk to"."""
    from vxlan import api

    for path in api.runtime_dir().glob("*.sock"):
        if not os.access(path, os.W_OK):
            raise Failure(_CLOSED.format(path.stem))


_CLOSED = (
    "the control socket of node {} is not open to you: use sudo, "
    "or set `group` in its configuration and join that group"
)


def call(name: str, op: str, **args: Any) -> Any:
    """One request to the node `name`; arguments that are None are left out."""
    from vxlan import api

    with _failures(name):
        return api.call(name, op, **{key: arg for key, arg in args.items() if arg is not None})


def stream(name: str, op: str, **args: Any) -> Iterator[dict[str, Any]]:
    """A request whose answer is a stream of objects."""
    from vxlan import api

    with _failures(name):
        yield from api.stream(
            name, op, **{key: arg for key, arg in args.items() if arg is not None}
        )


class Packets:
    """Packets of a running capture as they come, some at a time."""

    def __init__(self, name: str, chunks: Chunks) -> None:
        self._name = name
        self._chunks = chunks
        self._left = b""
        self.finished = False
        """Whether the end was asked for."""

    def __iter__(self) -> Iterator[list[Seen]]:
        from vxlan import sight

        while True:
            with _failures(self._name):
                chunk = next(self._chunks, b"")
                self._left += chunk
                whole = sight.whole(self._left)
                packets = list(sight.each(self._left[:whole]))
            if not chunk:
                return
            self._left = self._left[whole:]
            yield packets

    def finish(self) -> None:
        """Let the end come, behind what was seen until now."""
        self.finished = True
        self._chunks.finish()

    def close(self) -> None:
        """Let the connection go."""
        self._chunks.close()


def capture(name: str, **args: Any) -> tuple[Any, Packets]:
    """Begin to capture: the answer of the node, and the packets."""
    from vxlan import api

    with _failures(name):
        given = {key: arg for key, arg in args.items() if arg is not None}
        about, chunks = api.chunks(name, "capture", **given)
    return about, Packets(name, chunks)


@contextmanager
def _failures(name: str) -> Iterator[None]:
    from vxlan import api

    try:
        yield
    except api.NotRunning as error:
        raise Failure(str(error), NOT_RUNNING) from error
    except api.ApiError as error:
        raise Failure(str(error), USAGE if error.code == "usage" else FAILED) from error
    except PermissionError as error:
        raise Failure(_CLOSED.format(name)) from error
    except (OSError, ValueError) as error:
        raise Failure(f"node {name} does not answer: {error}: look at its log") from error
    except (KeyError, TypeError) as error:
        raise Failure(f"node {name} answers in a way that is not understood: {_OTHER}") from error
