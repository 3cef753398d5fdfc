"""Both engines on input that libFuzzer makes up from what it reaches: `make fuzz`.

The input is read as a program: bytes choose operations, lengths and bends.  After each
operation both engines must have returned the same, told the same and counted the same.
What splits and merges super-frames gets a virtio_net_hdr of any kind, and must stay in
its buffers: the sanitizers watch.

A failing input is written to crash-*; the same command with that file runs it again.
"""

from __future__ import annotations

import sys
from struct import pack
from typing import Any

import atheris

with atheris.instrument_imports(include=["vxlan._fastpath"]):
    from vxlan import _fastpath

from tests.test_differential import ADDRESSES, MACS, VNIS, both
from vxlan.engine import Datagram, Policy
from vxlan.fdb import Remote
from vxlan.wire import ETH_HLEN

STATIONS = MACS[:4]
IP4 = bytes.fromhex("4500 0000 0001 4000 4011 0000 0a2a0001 0a2a0002")
IP6 = bytes.fromhex("6000 0000 0000 1140") + b"\x20\x01" + bytes(30)


class Program:
    """What the bytes of one input say."""

    def __init__(self, data: bytes) -> None:
        self.given = atheris.FuzzedDataProvider(data)

    def one_of(self, many: list[Any]) -> Any:
        return many[self.given.ConsumeIntInRange(0, len(many) - 1)]

    def octets(self, most: int) -> bytes:
        return bytes(self.given.ConsumeBytes(self.given.ConsumeIntInRange(0, most)))

    def frame(self) -> bytes:
        """An Ethernet frame, whose head is likely and whose rest may be anything."""
        head = self.one_of(STATIONS) + self.one_of(STATIONS)
        kind = self.one_of([b"", b"\x08\0" + IP4, b"\x86\xdd" + IP6, b"\x81\0\0\7\x08\0" + IP4])
        bent = bytearray(head + kind + self.octets(120))
        for _ in range(self.given.ConsumeIntInRange(0, 3)):
            if bent:
                at = self.given.ConsumeIntInRange(0, len(bent) - 1)
                bent[at] = self.given.ConsumeIntInRange(0, 255)
        whole = bytes(bent) + bytes(self.one_of([0, 0, 1400, 1600, 9000]))
        return whole[: self.given.ConsumeIntInRange(0, len(whole))] if self.rarely() else whole

    def rarely(self) -> bool:
        return self.given.ConsumeIntInRange(0, 7) == 0

    def datagram(self) -> Datagram:
        header = pack("!B3xI", self.one_of([8, 8, 8, 0, 255]), self.one_of([42, 43, 44]) << 8)
        payload = self.octets(64) if self.rarely() else header + self.frame()
        remote = Remote(self.one_of([*ADDRESSES]), 50000)
        return Datagram(remote, payload, tos=self.one_of([0, 1, 2, 3]))

    def policy(self) -> Policy:
        return Policy(
            mtu=self.one_of([1450, 1280, 576]),
            maxaddress=self.one_of([1, 3, 1000]),
            vlan=self.one_of(["carry", "drop"]),
            reserved_bits=self.one_of(["ignore", "strict"]),
            mss=self.one_of(["clamp", "off", 500]),
            ttl=self.one_of([64, None]),
            tos=self.one_of([0, None]),
        )


def differ(program: Program) -> None:
    python, fast = both(program.policy())
    for _ in range(program.given.ConsumeIntInRange(1, 24)):
        several = range(program.given.ConsumeIntInRange(1, 3))
        what = program.one_of(["encap", "decap", "tick"])
        if what == "encap":
            step: tuple[Any, ...] = (what, VNIS[0], [program.frame() for _ in several])
        elif what == "decap":
            step = (what, [program.datagram() for _ in several])
        else:
            step = (what, program.one_of([0.01, 0.3, 400.0]))
        assert fast.do(step) == python.do(step), step
        assert fast.books() == python.books(), step


NUMBERS = [0, 1, 3, 4, 5, 14, 20, 34, 54, 255, 1400, 65535]


def split_and_merge(program: Program) -> None:
    """A super-frame under any header; frames that may continue each other."""
    given = [program.one_of(NUMBERS) for _ in range(6)]
    header = pack("=BBHHHH", given[0] & 255, given[1] & 255, *given[2:])
    _fastpath.split(header, program.frame(), 42, bool(given[0] & 1))
    frames = [program.frame().ljust(ETH_HLEN, b"\0") for _ in range(4)]
    merged = _fastpath.merge(frames, 1450)
    assert sum(segments for _, _, segments in merged) == len(frames)


def test_one_input(data: bytes) -> None:
    program = Program(data)
    if program.rarely():
        split_and_merge(program)
    else:
        differ(program)


if __name__ == "__main__":
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()
