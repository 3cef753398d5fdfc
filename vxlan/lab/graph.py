"""A lab as text: a tree for the terminal, and a diagram for Mermaid.

The picture as SVG is drawn in vxlan/lab/svg.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from vxlan.lab.plan import FAR, NEAR, Container, Host, Plan, Router, Segment


@dataclass(frozen=True)
class _Branch:
    text: str
    below: Sequence[_Branch] = field(default_factory=tuple)


def networks(plan: Plan) -> list[str]:
    """The networks of the underlay that there are."""
    return [NEAR, FAR] if plan.router else [NEAR]


def vtep_text(host: Host) -> str:
    """What carries a host's frames, in a few words."""
    if host.vtep == "pyvxlan":
        return f"pyvxlan ({host.engine})"
    return "kernel vxlan" if host.vtep == "kernel" else "no VTEP"


def link_text(host: Host) -> str:
    """What is special about a host's link; empty for an Ethernet of 1500 bytes."""
    link = host.link
    words = [f"mtu {link.mtu}"] if link.mtu != 1500 else []
    words += [f"delay {link.delay:g} ms"] if link.delay else []
    words += [f"loss {link.loss:g} %"] if link.loss else []
    return ", ".join(words)


def router_text(router: Router) -> str:
    """What is special about a router."""
    words = [f"carries {size} to {name}" for name, size in router.carry.items()]
    words += [f"mtu {router.mtu}"] if router.mtu != 1500 else []
    words += ["ICMP filtered"] if router.silent else []
    return ", ".join(words)


# -- text ----------------------------------------------------------------------------------


def text(plan: Plan) -> str:
    """The lab as a tree."""
    lines = [plan.title, ""]
    for network in networks(plan):
        lines.append(f"network {network}")
        lines += _drawn(_branches(plan, network), "")
    return "\n".join(lines) + "\n"


def _drawn(branches: Sequence[_Branch], indent: str) -> Iterator[str]:
    for branch in branches:
        last = branch is branches[-1]
        yield f"{indent}{'└─' if last else '├─'} {branch.text}"
        yield from _drawn(branch.below, indent + ("   " if last else "│  "))


def _branches(plan: Plan, network: str) -> list[_Branch]:
    found = [_host(host) for host in plan.hosts if host.network == network]
    if router := plan.router:
        here, there = (router.near, FAR) if network == NEAR else (router.far, NEAR)
        special = f"  {router_text(router)}" if router_text(router) else ""
        found.append(_Branch(f"{router.name}  {', '.join(here)}  router to {there}{special}"))
    return found


def _host(host: Host) -> _Branch:
    words = [host.name, ", ".join(host.address), vtep_text(host), link_text(host)]
    below = [_segment(host, segment) for segment in host.segments]
    below += [_container(one) for one in host.containers if one.vni is None]
    return _Branch("  ".join(filter(None, words)), below)


def _segment(host: Host, segment: Segment) -> _Branch:
    group = segment.keys.get("group")
    targets = [*([f"group {group}"] if group else []), *segment.remotes]
    to = ", ".join(targets) or "nobody"
    below = [_container(one) for one in host.containers if one.vni == segment.vni]
    return _Branch(f"VNI {segment.vni}  {segment.bridge} + {segment.device} → {to}", below)


def _container(container: Container) -> _Branch:
    return _Branch(f"{container.name}  {', '.join(container.address)}  mtu {container.mtu}")


# -- Mermaid -------------------------------------------------------------------------------


def mermaid(plan: Plan) -> str:
    """The lab as a Mermaid flowchart, which Markdown viewers draw."""
    lines = ["graph TD"]
    lines += [f'  net_{network}[["network {network}"]]' for network in networks(plan)]
    for host in plan.hosts:
        lines += _mermaid_host(host)
    if router := plan.router:
        special = f"<br/>{router_text(router)}" if router_text(router) else ""
        lines.append(f'  {_id(router.name)}{{"{router.name}{special}"}}')
        lines.append(f"  net_{NEAR} --- {_id(router.name)} --- net_{FAR}")
    return "\n".join(lines) + "\n"


def _mermaid_host(host: Host) -> Iterator[str]:
    own = _id(host.name)
    yield f'  subgraph box_{own}["{host.name} · {vtep_text(host)}"]'
    yield f'    {own}["eth0<br/>{"<br/>".join(host.address)}"]'
    for segment in host.segments:
        yield f'    {own}_{segment.vni}(["VNI {segment.vni}"]) --- {own}'
    for one in host.containers:
        below = own if one.vni is None else f"{own}_{one.vni}"
        yield f'    {_id(one.name)}("{one.name}<br/>{"<br/>".join(one.address)}") --- {below}'
    yield "  end"
    special = f'|"{link_text(host)}"| ' if link_text(host) else ""
    yield f"  {own} ---{special or ' '}net_{host.network}"


def _id(name: str) -> str:
    """A name that is none of Mermaid's words, such as `end`."""
    return f"n_{name.replace('-', '_')}"
