"""What no single key can say: the parts of a configuration have to fit each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vxlan.config_lines import KeyPath, Wrong, show
from vxlan.echo import source_for
from vxlan.mtu import MIN_MTU_IPV6
from vxlan.wire import mac_text

if TYPE_CHECKING:
    from vxlan.config import NodeConfig, SegmentConfig, VtepConfig


def check(config: NodeConfig) -> None:
    """Raise Wrong for what contradicts itself."""
    vtep = config.vtep
    if not (config.segments or vtep.local or vtep.dev):
        raise Wrong(
            ("segment",),
            "there is no segment: add a [[segment]] with a vni, or set local or dev in [vtep] "
            "for a node whose segments come by command",
        )
    check_segments(config.segments)
    _local_addresses(vtep)
    if not vtep.local and not vtep.dev and not any(s.all_remotes() for s in config.segments):
        raise Wrong(("vtep",), "no address to send from: set local or dev")


def check_segments(segments: tuple[SegmentConfig, ...]) -> None:
    """Raise Wrong for segments that contradict themselves or each other."""
    each_once([segment.vni for segment in segments], ("segment",), "vni", "VNI")
    each_once([segment.tap for segment in segments], ("segment",), "tap", "the TAP")
    _bridges(segments)
    _room_for_ipv6(segments)
    _echoes(segments)
    _names(segments)


def each_once(values: list[Any], array: KeyPath, key: str, what: str) -> None:
    """Raise Wrong if a value is there twice; `array` and `key` say where the values stand."""
    seen: dict[Any, int] = {}
    for index, value in enumerate(values):
        if value in seen:
            shown = mac_text(value) if isinstance(value, bytes) else value
            first = show((*array, seen[value]))
            raise Wrong((*array, index, key), f"{what} {shown} is already {first}'s: change one")
        seen[value] = index


def _bridges(segments: tuple[SegmentConfig, ...]) -> None:
    taps = {segment.tap for segment in segments}
    owner: dict[str, int] = {}
    for index, segment in enumerate(segments):
        path: KeyPath = ("segment", index, "bridge")
        if segment.bridge in taps:
            raise Wrong(path, f"{segment.bridge} is a TAP's name: choose another")
        if segment.bridge is not None and owner.setdefault(segment.bridge, index) != index:
            raise Wrong(
                path,
                f"{segment.bridge} is already segment[{owner[segment.bridge]}]'s: one bridge "
                "would join the two VNIs, take another",
            )


def _room_for_ipv6(segments: tuple[SegmentConfig, ...]) -> None:
    for index, segment in enumerate(segments):
        six = [cidr for cidr in segment.address if ":" in cidr]
        if six and segment.mtu is not None and segment.mtu < MIN_MTU_IPV6:
            raise Wrong(
                ("segment", index, "mtu"),
                f"{segment.mtu} is too small for the address {six[0]}: IPv6 needs {MIN_MTU_IPV6}",
            )


def _echoes(segments: tuple[SegmentConfig, ...]) -> None:
    for index, segment in enumerate(segments):
        path: KeyPath = ("segment", index, "echo")
        remotes = {remote.address for remote in segment.all_remotes()}
        for vtep, station in segment.echo:
            if vtep not in remotes:
                raise Wrong(path, f"{vtep} is no remote of the segment: add it to remotes")
            if problem := station_problem(station, segment.address):
                raise Wrong(path, problem)


def _names(segments: tuple[SegmentConfig, ...]) -> None:
    for index, segment in enumerate(segments):
        if segment.names and all(":" in cidr for cidr in segment.address):
            text = "names are answered at an IPv4 address of the segment: set address"
            raise Wrong(("segment", index, "names"), text)


def station_problem(station: str, own: tuple[str, ...]) -> str | None:
    """Why a station cannot be asked from the addresses `own`; None if it can."""
    if source_for(station, own) is not None:
        return None
    return (
        f"{station} is in no network of this host in the segment: "
        "echoes need an address of that network, set `address`"
    )


def _local_addresses(vtep: VtepConfig) -> None:
    families = [":" in address for address in vtep.local]
    if len(set(families)) < len(families):
        raise Wrong(("vtep", "local"), "two addresses of one family: keep the one to send from")


def family_problem(address: str, local: tuple[str, ...]) -> str | None:
    """Why nothing can be sent to `address` from `local`; None if it can, or `local` is open."""
    if not local or any((":" in mine) == (":" in address) for mine in local):
        return None
    family = "IPv6" if ":" in address else "IPv4"
    return f"{address} is {family} and local has no {family} address: add one to vtep.local"
