"""What was decided about a packet, in words: the comments of a capture.

encap vni 42 -> 192.0.2.2, learned 3 s ago
encap vni 42 -> 2 remotes, flooded
decap vni 42 <- 192.0.2.2
dropped VXLAN_VNI_NOT_FOUND (vni 99 <- 192.0.2.2): no segment here has this VNI
"""

from __future__ import annotations

from vxlan.fdb import Remote
from vxlan.sight import Flag, Found, Seen, Where

_FOUND = {
    Found.NOT: "",
    Found.DYNAMIC: "learned",
    Found.EXTERN_LEARN: "told by a control plane",
    Found.STATIC: "static entry",
    Found.FLOOD: "flooded",
}


def say(seen: Seen, dstport: int = 4789) -> str:
    """One line; ports are told where they are not `dstport`."""
    if seen.where is Where.LOST:
        return f"{seen.targets} packets were seen here and not kept"
    if seen.reason is not None:
        return _dropped(seen, dstport)
    if seen.flags & Flag.SUPPRESSED:
        return f"vni {seen.vni}: a question for a neighbour that is announced: answered here"
    if seen.flags & Flag.OWN:
        return _own(seen, dstport)
    return ", ".join([_way(seen, dstport), *_more(seen)])


def _dropped(seen: Seen, dstport: int) -> str:
    assert seen.reason is not None
    whose = f" ({_way(seen, dstport).partition(' ')[2]})" if seen.vni is not None else ""
    if seen.vni is None and seen.remote is not None:
        whose = f" (<- {seen.remote.address})"
    more = ", answered with packet-too-big" if seen.flags & Flag.ANSWERED else ""
    return f"dropped {seen.reason.name}{whose}: {seen.reason.meaning}{more}"


def _own(seen: Seen, dstport: int) -> str:
    if seen.where is Where.TAP_OUT:
        return f"vni {seen.vni}: an answer or a question of this VTEP"
    if seen.where is Where.UNDERLAY_IN:
        dstport = 0
    side = "->" if seen.where is Where.UNDERLAY_OUT else "<-"
    return f"probe, acknowledgement or announcement {side} {_remote(seen.remote, dstport)}"


def _way(seen: Seen, dstport: int) -> str:
    vni = f" vni {seen.vni}" if seen.vni is not None else ""
    if seen.where in (Where.UNDERLAY_IN, Where.TAP_OUT):
        return f"decap{vni} <- {_remote(seen.remote, 0)}"
    if seen.targets > 1 and seen.where is Where.TAP_IN:
        return f"encap{vni} -> {seen.targets} remotes"
    return f"encap{vni} -> {_remote(seen.remote, dstport)}" if seen.remote else f"encap{vni}"


def _remote(remote: Remote | None, dstport: int) -> str:
    """The address; with its port where that says something (a source port does not)."""
    if remote is None:
        return "nobody"
    return remote.address if dstport in (0, remote.port) else str(remote)


def _more(seen: Seen) -> list[str]:
    said = [_FOUND[seen.found]] if seen.found else []
    if seen.found is Found.DYNAMIC and seen.age is not None:
        said = [f"learned {seen.age // 1000} s ago"]
    if seen.flags & Flag.CHANGED:
        said.append("MSS lowered" if seen.where is Where.TAP_IN else "MSS or ECN changed")
    if seen.flags & Flag.FRAGMENTED:
        said.append("fragmented")
    if seen.where is Where.TAP_OUT and seen.targets > 1:
        said.append(f"{seen.targets} segments merged")
    return said
