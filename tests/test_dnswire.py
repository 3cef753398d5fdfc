"""DNS messages: ours are what scapy reads, scapy's are what we read, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dns import DNS, DNSQR, DNSRR

from vxlan import dnswire
from vxlan.dnswire import AAAA, NO_SUCH_NAME, A, Question


def query(name: str, kind: str = "A", number: int = 7, **header: int) -> bytes:
    return bytes(DNS(id=number, qd=DNSQR(qname=name, qtype=kind), **header))


def question(name: str, kind: str = "A") -> Question:
    found = dnswire.parse(query(name, kind, rd=1))
    assert found is not None
    return found


def test_a_query_is_read() -> None:
    found = question("Web.")
    assert (found.number, found.name, found.kind, found.wanted) == (7, "web", A, True)
    assert found.single
    assert not question("web.example.").single
    assert [question("web", kind).version for kind in ("A", "AAAA", "TXT")] == [4, 6, None]


@pytest.mark.parametrize(
    "message",
    [
        b"",
        query("web")[:-1],
        query("web")[:14],
        query("web", qr=1),
        query("web", opcode=2),
        bytes(DNS(qd=[DNSQR(qname="a"), DNSQR(qname="b")])),
        bytes(DNS(qd=DNSQR(qname="a", qclass=3))),
        bytes(12)[:4] + b"\0\1" + bytes(6) + b"\xc0\x0c\0\1\0\1",
        query("web") + bytes(5000),
    ],
    ids=["empty", "short", "no type", "answer", "status", "two", "class", "pointer", "long"],
)
def test_what_is_no_query_is_none(message: bytes) -> None:
    assert dnswire.parse(message) is None


def test_an_answer_has_the_addresses_of_the_family_that_was_asked_for() -> None:
    both = ["10.42.1.1", "2001:db8::1", "10.42.1.2"]
    four = DNS(dnswire.answer(question("web"), both, 5))
    assert [one.rdata for one in four.an] == ["10.42.1.1", "10.42.1.2"]
    assert {(one.rrname, one.ttl) for one in four.an} == {(b"web.", 5)}
    assert (four.id, four.qr, four.aa, four.rd, four.rcode) == (7, 1, 1, 1, 0)
    assert [one.rdata for one in DNS(dnswire.answer(question("web", "AAAA"), both, 5)).an] == [
        "2001:db8::1"
    ]
    none = DNS(dnswire.answer(question("web", "TXT"), both, 5))
    assert (none.ancount, none.rcode) == (0, 0)


def test_an_answer_is_bounded() -> None:
    many = [f"10.42.{n // 250}.{n % 250}" for n in range(1000)]
    long = question(".".join(["x" * 50] * 4))
    assert len(dnswire.answer(long, many, 5)) <= 512


def test_a_refusal_says_why() -> None:
    found = DNS(dnswire.refusal(question("web"), NO_SUCH_NAME))
    assert (found.qr, found.rcode, found.qd[0].qname) == (1, 3, b"web.")


@pytest.mark.parametrize(("kind", "address"), [(A, "10.42.1.1"), (AAAA, "2001:db8::1")])
def test_llmnr_there_and_back(kind: int, address: str) -> None:
    asked = dnswire.parse(dnswire.ask(99, "web", kind))
    assert asked is not None
    told = dnswire.answer(asked, [address], 5, llmnr=True)
    assert dnswire.addresses(told, asked) == [address]
    assert DNS(told).aa == 0
    other = dnswire.parse(dnswire.ask(98, "web", kind))
    assert other is not None
    assert dnswire.addresses(told, other) is None
    for end in range(len(told)):
        assert dnswire.addresses(told[:end], asked) in (None, [])


def test_an_answer_that_spells_the_name_out_is_read() -> None:
    asked = dnswire.parse(dnswire.ask(5, "web", A))
    assert asked is not None
    told = bytes(
        DNS(
            id=5,
            qr=1,
            qd=DNSQR(qname="WEB"),
            an=[DNSRR(rrname="web", rdata="10.42.1.1"), DNSRR(rrname="web", type="TXT", rdata="x")],
        )
    )
    assert dnswire.addresses(told, asked) == ["10.42.1.1"]


@pytest.mark.parametrize("name", ["", "a..b", "x" * 64])
def test_what_is_no_name_cannot_be_asked_for(name: str) -> None:
    with pytest.raises(ValueError, match="is no name"):
        dnswire.ask(1, name, A)


@given(st.binary(max_size=300))
def test_nothing_that_comes_breaks_it(message: bytes) -> None:
    dnswire.parse(message)
    asked = dnswire.parse(dnswire.ask(1, "web", A))
    assert asked is not None
    dnswire.addresses(message, asked)
    dnswire.addresses(dnswire.answer(asked, ["10.0.0.1"], 5)[:-16] + message, asked)
