"""An explanation for people: the verdict first, then what led to it, then the octets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from vxlan.cli import output
from vxlan.cli.output import Cell, Column, Page, Tone

Answer = dict[str, Any]

_TONE: dict[str, Tone] = {"encap": "good", "decap": "good", "suppress": "good", "drop": "bad"}
_RESULT: dict[str, Tone] = {"ok": "good", "refused": "bad", "answered": "good"}

_RANK = {
    "static": "the highest rank: nothing overrules it, and it never ages",
    "extern_learn": "the middle rank: a static entry overrules it, and it never ages",
    "dynamic": "the lowest rank: any other claim overrules it, and it ages",
}
_FATE = {
    "fits": "it fits",
    "clamped": "it fits; the MSS of this SYN is lowered to what fits",
    "fragmented": "too big: fragmented inside, into {fragments} IPv4 packets",
    "answered": "too big: its sender is answered with packet-too-big, next-hop MTU {limit}",
    "unanswered": "too big, and no answer can be given to its sender",
}
_LEARNING = {
    "learned": "the source is new: it is learned behind the sender",
    "moved": "the source was behind another remote: it moves behind the sender",
    "conflict": "the source is claimed for another remote, by a higher rank: the entry stays",
    "known": "the source is known there: nothing changes",
    "unkept": "every place of the table is taken by higher ranks: the source is not learned",
    "off": "learning is off",
}


def show(page: Page, answer: Answer) -> None:
    """The whole explanation, and that of the other end where it was asked."""
    _one(page, answer)
    if answer["outer"]["hex"]:
        page.gap()
        page.heading("outer headers, octet by octet")
        for line in octets(answer):
            click.echo(line)
    for end in answer.get("other_ends", ()):
        page.gap()
        _other_end(page, end)


def _one(page: Page, answer: Answer) -> None:
    page.heading(f"{_what(answer)}: {answer['verdict']}")
    page.fact("reason", f"{answer['reason']}: {answer['meaning']}", _tone(answer))
    if answer["remedy"]:
        page.fact("remedy", answer["remedy"])
    for label, text in _facts(answer):
        page.fact(label, text)
    if answer["rules"]:
        page.table(_RULES, list(_rules(answer["rules"])))


def _rules(rules: list[dict[str, str]]) -> Iterator[output.Row]:
    """What was asked; how much was not, in one line."""
    asked = [rule for rule in rules if rule["result"] != "not asked"]
    for at, rule in enumerate(asked, 1):
        yield _rule(at, rule)
    if left := len(rules) - len(asked):
        yield ("", f"{left} more", Cell("not asked", "faint"))


_RULES = [Column("", right=True), Column("rule"), Column("result")]


def _rule(at: int, rule: dict[str, str]) -> output.Row:
    return (str(at), rule["rule"], Cell(rule["result"], _RESULT[rule["result"]]))


def _tone(answer: Answer) -> Tone:
    return _TONE.get(answer["verdict"], "plain")


def _what(answer: Answer) -> str:
    where = f"node {answer['node']}" if answer["node"] else "no node"
    if answer["side"] is None:
        return "packet, for no VTEP"
    if answer["side"] == "encap":
        return f"frame from the TAP of VNI {answer['vni']}, {where}"
    vni = "of no VNI" if answer["vni"] is None else f"for VNI {answer['vni']}"
    return f"datagram {vni} from {answer['outer']['src']}, {where}"


# -- facts ---------------------------------------------------------------------------------


def _facts(answer: Answer) -> Iterator[tuple[str, str]]:
    from vxlan.inner import describe, sentence

    if answer["outer"]["src"]:
        yield "outer", _outer(answer["outer"])
    yield "inner", sentence(answer["inner"])
    if answer["segment"]:
        yield "segment", _segment(answer["segment"])
    if answer["side"]:
        yield "entry", _entry(answer)
    if answer["entry"]:
        yield "said by", _claim(answer["entry"])
    yield from _remotes(answer)
    if answer["learning"]:
        yield "learning", _learned(answer["learning"])
    if answer["mtu"]:
        yield "mtu", _mtu(answer["mtu"])
    if answer["answer"]:
        yield "answer", sentence(describe(bytes.fromhex(answer["answer"])))
    for note in answer["notes"]:
        yield "note", note


def _outer(outer: Answer) -> str:
    def end(address: str, port: int | None) -> str:
        return address if port is None else f"{address} port {port}"

    source, target = end(outer["src"], outer["sport"]), end(outer["dst"], outer["dport"])
    rest = [f"TOS {outer['tos']}"]
    rest += [f"TTL {outer['ttl']}"] if outer["ttl"] is not None else []
    rest += [f"{outer['length']} bytes"] if outer["length"] is not None else []
    return f"{source} -> {target}, {', '.join(rest)}"


def _segment(segment: Answer) -> str:
    tap = f"TAP {segment['tap']}" + (f" in {segment['bridge']}" if segment["bridge"] else "")
    return f"{segment['vni']}, {tap}, MTU {segment['mtu']}: {segment['mtu_limit']}"


def _entry(answer: Answer) -> str:
    inner, entry = answer["inner"], answer["entry"]
    mac = inner["dst" if answer["side"] == "encap" else "src"]
    if mac is None or answer["vni"] is None:
        return "not asked for"
    if entry is None:
        return f"none for {mac}"
    return f"{mac} is behind {', '.join(_remote(one) for one in entry['dst'])}"


def _claim(entry: Answer) -> str:
    """Where an entry comes from, its rank and its age."""
    age = f"since {output.span(entry['since'])}, confirmed {output.span(entry['age'])} ago"
    return f"{entry['source']}, {age}; {entry['state']}: {_RANK[entry['state']]}"


def _remote(remote: Answer) -> str:
    from vxlan.fdb import Remote

    return str(Remote(remote["address"], remote["port"]))


def _remotes(answer: Answer) -> Iterator[tuple[str, str]]:
    label = "flood" if answer["flooded"] else "remote"
    for remote in answer["remotes"]:
        parts = [_remote(remote)]
        if remote.get("state"):
            parts.append(remote["state"] if remote["state"] != "unknown" else "not heard yet")
        if path := remote.get("path"):
            parts.append(f"its path carries {path['mtu']} (known by {path['how']})")
        yield label, ", ".join(parts)
    if answer["datagrams"] and not answer["datagrams"][0]["src"]:
        yield "note", "this host has no address of the remote's kind: nothing can be sent"
    if answer["datagrams_total"] > len(answer["datagrams"]):
        yield "note", f"{answer['datagrams_total']} datagrams leave in all"


def _learned(learning: Answer) -> str:
    full = "; the table is full: the remote that holds most loses its oldest entry"
    return _LEARNING[learning["what"]] + (full if learning["full"] else "")


def _mtu(mtu: Answer) -> str:
    return f"{mtu['packet']} bytes, {mtu['limit']} fit ({mtu['bound']}): " + _FATE[
        mtu["fate"]
    ].format(**mtu)


# -- octets --------------------------------------------------------------------------------


def octets(answer: Answer) -> Iterator[str]:
    """The outer headers as lines: field, octets, meaning."""
    from vxlan.lab.dissect import dissect

    for header in dissect(bytes.fromhex(answer["outer"]["hex"]), *start(answer)):
        yield f"  {header.name}, {header.length} bytes"
        for name, raw, meaning in header.fields:
            yield f"    {name:<18} {raw.hex(' '):<24} {meaning}".rstrip()


def start(answer: Answer) -> tuple[int, str]:
    """The VXLAN port, and which header the outer octets begin with."""
    outer = answer["outer"]
    if outer["length"] is None:
        return outer["dport"], "VXLAN"
    return outer["dport"], "IPv6" if ":" in outer["src"] else "IPv4"


def _other_end(page: Page, end: Answer) -> None:
    name = f"node {end['node']}, " if end["node"] else ""
    where = f"{name}{end['address']}" if end["address"] else "nobody"
    page.heading(f"the other end: {where}")
    if end["explanation"] is None:
        page.fact("not asked", end["why"])
    else:
        _one(page, end["explanation"])
