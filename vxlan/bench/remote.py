"""Between two real hosts: over the overlay, and beside it.

Theory of operation
===================

    this host                                    the other host
    pyvxlan bench remote 10.42.0.2               pyvxlan bench serve

        what to do     --- overlay, TCP 4790 --->     agent
        test           --- overlay ------------->     10.42.0.2
        same test      --- underlay ------------>     192.0.2.2

The other host listens on its overlay address only, so whoever can ask is in the
overlay already; and it sends traffic only to who asked, and to remotes of its own
nodes, so nobody can aim it at a third party.  One asks at a time.

Both ways take turns within each round, and the ratio is overlay / beside.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_interface
from typing import Any, NamedTuple

from vxlan import __version__, api
from vxlan.bench import load, method
from vxlan.bench.agent import answers
from vxlan.bench.ends import Agent, LocalAgent
from vxlan.bench.generator import GENERATOR, LoadError
from vxlan.bench.load import End, Sample

PORT = 4790
CONNECT_TIMEOUT = 5.0
SILENCE = 60.0
"""Seconds without a request after which a visitor is sent away."""

Row = dict[str, Any]


class Place(NamedTuple):
    """What the nodes of a host know: overlay and underlay addresses, their remotes; pids."""

    overlay: tuple[str, ...]
    underlay: tuple[str, ...]
    remotes: tuple[str, ...]
    pids: tuple[int, ...] = ()


def here() -> Place:
    """The place of this host, from all nodes that run."""
    return place_of([api.call(name, "show") for name in api.running()])


def place_of(shown: Sequence[Mapping[str, Any]]) -> Place:
    """The place of a host out of what its nodes show."""
    segments = [segment for one in shown for segment in one["segments"]]
    return Place(
        tuple(str(ip_interface(cidr).ip) for one in segments for cidr in one["address"]),
        tuple(address for one in shown for address in one["vtep"]["local"]),
        tuple(remote["address"] for one in segments for remote in one["remotes"]),
        tuple(one["pid"] for one in shown),
    )


# -- the host that is asked ----------------------------------------------------------------


def serve(address: str, place: Callable[[], Place], told: Callable[[str], None]) -> None:
    """Serve one visitor after the other, for ever.  Raises OSError if it cannot listen."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, PORT), family=family) as listener:
        told(f"serving on {address}, port {PORT}: `pyvxlan bench remote {address}` elsewhere")
        while True:
            connection, peer = listener.accept()
            told(f"{peer[0]} measures")
            with connection:
                connection.settimeout(SILENCE)
                visit(connection, peer[0], place())
            told(f"{peer[0]} is done")


def visit(connection: socket.socket, peer: str, place: Place) -> None:
    """Answer the requests of one visitor until it leaves."""
    allowed = {peer, *place.remotes}
    with connection.makefile("rw", encoding="utf-8", newline="\n") as lines:
        try:
            for line in iter(lambda: lines.readline(4096), ""):
                for reply in _replies(line, allowed, place):
                    lines.write(json.dumps(reply) + "\n")
                    lines.flush()
        except OSError:
            return  # it went away, or said nothing for too long


def _replies(line: str, allowed: set[str], place: Place) -> Iterator[dict[str, Any]]:
    refused = refusal(line, allowed, place)
    if refused is not None:
        yield refused
    else:
        yield from answers(line)


def refusal(line: str, allowed: set[str], place: Place) -> dict[str, Any] | None:
    """The reply to a greeting, or to a request that is not granted; None: go on."""
    try:
        request = json.loads(line)
        op, arguments = str(request["op"]), request.get("arguments", {})
        if op == "hello":
            return {
                "version": __version__,
                "underlay": place.underlay,
                "generator": GENERATOR,
                "last": True,
            }
        address = arguments["address"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # the agent says what is wrong with it
    known = {*place.overlay, *place.underlay} if op.endswith("_sink") else allowed
    if address in known:
        return None
    what = "no address of this host" if op.endswith("_sink") else "neither you nor a remote"
    return {"error": f"{address} is {what}", "last": True}


# -- the host that asks ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Paths:
    """The two ways to one host, each with its own address at both ends."""

    overlay: tuple[End, End]
    beside: tuple[End, End]
    generators: tuple[str, str] = (GENERATOR, GENERATOR)


@contextmanager
def connected(host: str, beside: str | None, remotes: Sequence[str]) -> Iterator[Paths]:
    """The paths to a host that serves.  Raises LoadError."""
    try:
        control = socket.create_connection((host, PORT), timeout=CONNECT_TIMEOUT)
    except socket.gaierror as error:
        raise LoadError(f"{host}: no such host: give its overlay address") from error
    except OSError as error:
        raise LoadError(
            f"{host}, port {PORT}: {error.strerror or error}: run `pyvxlan bench serve` there"
        ) from error
    control.settimeout(SILENCE)
    agent = LocalAgent(None)
    try:
        with control, control.makefile("rw", encoding="utf-8", newline="\n") as lines:
            there = Agent(lines, lines)
            there.ask("hello")
            greeting = there.result()
            other = beside or underlay_of(greeting, remotes)
            yield Paths(
                (_end(agent, control.getsockname()[0]), _end(there, host)),
                (_end(agent, source_towards(other)), _end(there, other)),
                (GENERATOR, str(greeting["generator"])),
            )
    finally:
        agent.close()


def _end(agent: Agent, address: str) -> End:
    return End(agent, address, bind=address)


def underlay_of(greeting: Mapping[str, Any], remotes: Sequence[str]) -> str:
    """The address of the other host beside the overlay.  Raises LoadError."""
    if greeting["version"] != __version__:
        raise LoadError(
            f"the other host runs pyvxlan {greeting['version']}, this one {__version__}: "
            "install the same version on both"
        )
    for address in greeting["underlay"]:
        if address in remotes:
            return str(address)
    raise LoadError("none of its addresses is a remote of a node here: give one with --beside")


def source_towards(address: str) -> str:
    """The address of this host from which it would speak to another."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((address, 9))
        return str(probe.getsockname()[0])


class Measured(NamedTuple):
    """A row for each figure; `interrupted` if Ctrl-C came before all rounds were done."""

    rows: list[Row]
    interrupted: bool


def measure(
    paths: Paths,
    tests: Sequence[str],
    rounds: int,
    seconds: float,
    nodes: Collection[int],
    progress: Callable[[str, float], None],
) -> Measured:
    """Run the tests over both paths in turn.  Raises LoadError.

    `nodes` are the pids of the nodes here, whose work is no disturbance.
    """
    taken: dict[tuple[str, str], list[Sample]] = {}
    total, done = 2 * len(tests) * rounds, 0
    ways = {"overlay": paths.overlay, "beside": paths.beside}
    agents = (end.agent for end in paths.overlay)
    ours = {os.getpid(), *nodes, *(one.pid for one in agents if isinstance(one, LocalAgent))}
    interrupted = True
    with suppress(KeyboardInterrupt):
        for round_ in range(rounds):
            for name in tests:
                for way in method.turns(tuple(ways), round_):
                    progress(f"round {round_ + 1}, {name}, {way}", done / total)
                    sample = load.measure(load.TESTS[name], ways[way], seconds, (), ours)
                    sample.figures.pop("cpu-all", None)  # of one of two hosts: half an answer
                    taken.setdefault((name, way), []).append(sample)
                    done += 1
        interrupted = False
    both = ((taken.get((name, way), []) for way in ways) for name in tests)
    return Measured([row for overlay, beside in both for row in rows(overlay, beside)], interrupted)


def rows(overlay: Sequence[Sample], beside: Sequence[Sample]) -> Iterator[Row]:
    """The figures of one test over both paths, and their ratio round by round."""
    for figure in dict.fromkeys(name for sample in overlay for name in sample.figures):
        each = [sample.figures.get(figure) for sample in overlay]
        compared = method.ratios(each, [sample.figures.get(figure) for sample in beside])
        own, base = (
            [sample.figures[figure] for sample in samples if figure in sample.figures]
            for samples in (overlay, beside)
        )
        others = [sample.disturbance for sample in (*overlay, *beside)]
        ratio = method.summary(compared)
        yield {
            "test": figure,
            "unit": load.FIGURES[figure].unit,
            "overlay": _median(own),
            "beside": _median(base),
            "ratio": ratio.median if ratio else None,
            "ratio_low": ratio.low if ratio else None,
            "ratio_high": ratio.high if ratio else None,
            "rounds": {"overlay": own, "beside": base},
            "verdict": method.verdict(own, compared, others),
        }


def _median(values: Sequence[float]) -> float | None:
    found = method.summary(values)
    return found.median if found else None
