"""Arguments in the words of bridge(8): `dst 192.0.2.2 port 8472 vni 42 dev vxlan42 static`.

The words may come in any order, and each that takes a value is also an option
(`--dst 192.0.2.2`).  What is wrong is a usage error before a node is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import click

from vxlan import config_values as values
from vxlan.cli import session
from vxlan.cli.errors import Failure
from vxlan.cli.options import node_option
from vxlan.wire import mac_text

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_WITH_VALUE = ("dst", "port", "vni", "dev")
_STATES = {
    "static": "static",
    "permanent": "static",
    "dynamic": "dynamic",
    "extern_learn": "extern_learn",
}
_NO_MEANING_HERE = {"self"}  # it stands in what `fdb show` prints


@dataclass(frozen=True, slots=True)
class Words:
    """What the arguments said; None = was not said.  `rest` is what is no word of ours."""

    dst: str | None = None
    port: int | None = None
    vni: int | None = None
    dev: str | None = None
    state: str | None = None
    rest: tuple[str, ...] = ()


class Target(NamedTuple):
    """The node that is meant, and the segment on it (None: its only one)."""

    node: str
    vni: int | None


def parse(words: Sequence[str], **options: str | None) -> Words:
    """Words and options together."""
    said = {key: value for key, value in options.items() if value is not None}
    rest: list[str] = []
    left = iter(words)
    for word in left:
        if word in _WITH_VALUE:
            _say(said, word, next(left, None))
        elif word in _STATES:
            _say(said, "state", _STATES[word])
        elif word not in _NO_MEANING_HERE:
            rest.append(word)
    return _checked_words(said, tuple(rest))


def _say(said: dict[str, str], word: str, value: str | None) -> None:
    if value is None:
        raise _usage(f"the word {word} wants a value behind it")
    if said.setdefault(word, value) != value:
        raise _usage(f"{word} is given twice, {said[word]} and {value}: leave one out")


def _checked_words(said: dict[str, str], rest: tuple[str, ...]) -> Words:
    port = _number(values.port, said.get("port"))
    dst = said.get("dst")
    if dst is not None:
        dst, port = remote(dst, port)
    return Words(
        dst, port, _number(values.vni, said.get("vni")), said.get("dev"), said.get("state"), rest
    )


def _number(check: Callable[[object], int], text: str | None) -> int | None:
    if text is None:
        return None
    return _checked(lambda: check(int(text) if text.isdecimal() and len(text) < 12 else text))


def remote(text: str, port: int | None) -> tuple[str, int | None]:
    """Address and port of a remote: `192.0.2.2`, `192.0.2.2:8472`, `[2001:db8::2]:8472`."""
    unsaid = 0
    found = _checked(lambda: values.remote(text, unsaid))
    if found.port == unsaid:
        return found.address, port
    if port not in (None, found.port):
        raise _usage(f"two ports are given, {found.port} and {port}: leave one out")
    return found.address, found.port


def mac(text: str) -> str:
    """A MAC in the spelling of the API, lower case with colons."""
    return mac_text(_checked(lambda: values.mac(text)))


def _checked(check: Callable[[], T]) -> T:
    try:
        return check()
    except ValueError as error:
        raise _usage(str(error)) from None


def _usage(text: str) -> click.UsageError:
    return click.UsageError(text, click.get_current_context(silent=True))


def refuse_rest(words: Words) -> None:
    """A usage error if there are arguments that nobody understood."""
    if words.rest:
        raise _usage(
            f"{words.rest[0]!r} is not understood here: the words are {', '.join(_WITH_VALUE)}"
            f" and {', '.join(_STATES)}"
        )


def take_name(words: Words) -> tuple[str | None, Words]:
    """The node's name, if it stands before the words, and what is left."""
    if not words.rest:
        return None, words
    return words.rest[0], replace(words, rest=words.rest[1:])


def need_dst(words: Words) -> str:
    """The remote, which this command cannot do without."""
    if words.dst is None:
        raise _usage("no remote is named: add `dst IP`")
    return words.dst


def target(node: str | None, words: Words) -> Target:
    """Which node and segment are meant; `dev TAP` names both."""
    if words.dev is None:
        return Target(session.choose(node), words.vni)
    for name in [session.choose(node)] if node else session.running():
        for segment in session.call(name, "show")["segments"]:
            if segment["tap"] == words.dev and words.vni in (None, segment["vni"]):
                return Target(name, segment["vni"])
    raise Failure(f"no running segment has the TAP {words.dev}: `pyvxlan show` lists them")


def shown(words: Sequence[str], node: str | None, **options: str | None) -> tuple[Target, Words]:
    """What the arguments of a command that shows something mean: `[NAME] [vni N] [dev TAP]`."""
    said = parse(words, **options)
    if node is None:
        node, said = take_name(said)
    refuse_rest(said)
    return target(node, said), said


def segment_options(command: F) -> F:
    """`--vni`, `--dev` and `--node`: which segment of which node."""
    vni = click.option("--vni", metavar="N", help="Which segment.")
    dev = click.option("--dev", metavar="TAP", help="Which segment, by the name of its TAP.")
    return vni(dev(node_option(command)))


def remote_options(command: F) -> F:
    """`--dst` and `--port`: which remote."""
    dst = click.option("--dst", metavar="IP", help="The remote VTEP.")
    port = click.option("--port", metavar="P", help="Its UDP port, if not the node's dstport.")
    return dst(port(command))
