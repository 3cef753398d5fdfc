"""Addresses out of ranges."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vxlan.ipam import Given, NoAddress, choose, range_sets


def sets(*tables: dict[str, Any]) -> Any:
    return range_sets([[table] for table in tables])


def one(table: dict[str, Any], taken: set[str] | None = None, last: str = "") -> str:
    (found,) = choose(sets(table), (), taken or set(), {table["subnet"]: last} if last else {})
    return found.cidr


def test_the_network_the_broadcast_and_the_gateway_are_nobodys() -> None:
    table = {"subnet": "10.42.0.0/29", "gateway": "10.42.0.1"}
    given = [one(table, {f"10.42.0.{n}" for n in range(2, last)}) for last in range(2, 7)]
    assert given == [f"10.42.0.{n}/29" for n in range(2, 7)]
    with pytest.raises(NoAddress, match="no address is free"):
        one(table, {f"10.42.0.{n}" for n in range(2, 7)})


def test_the_search_goes_on_behind_the_last_and_wraps() -> None:
    table = {"subnet": "10.42.0.0/24", "rangeStart": "10.42.0.10", "rangeEnd": "10.42.0.12"}
    assert one(table, last="10.42.0.10") == "10.42.0.11/24"
    assert one(table, last="10.42.0.12") == "10.42.0.10/24"
    assert one(table, {"10.42.0.11", "10.42.0.12"}, last="10.42.0.11") == "10.42.0.10/24"
    assert one(table, last="10.42.0.99") == "10.42.0.10/24"


@pytest.mark.parametrize(
    ("subnet", "count"), [("10.0.0.0/31", 2), ("10.0.0.7/32", 1), ("2001:db8::/127", 2)]
)
def test_the_smallest_networks(subnet: str, count: int) -> None:
    taken: set[str] = set()
    for _ in range(count):
        taken.add(one({"subnet": subnet}, taken).partition("/")[0])
    assert len(taken) == count
    with pytest.raises(NoAddress):
        one({"subnet": subnet}, taken)


def test_one_address_of_each_set_and_the_second_range_when_the_first_is_full() -> None:
    both = range_sets(
        [
            [{"subnet": "10.0.0.4/32"}, {"subnet": "10.0.1.0/24", "gateway": "10.0.1.1"}],
            [{"subnet": "2001:db8::/64"}],
        ]
    )
    found = choose(both, (), {"10.0.0.4"}, {})
    assert found == [Given("10.0.1.2/24", "10.0.1.1"), Given("2001:db8::1/64", None)]


def test_a_wish_takes_the_place_of_its_set() -> None:
    both = sets({"subnet": "10.0.0.0/24", "gateway": "10.0.0.1"}, {"subnet": "2001:db8::/64"})
    assert choose(both, ("10.0.0.9",), set(), {}) == [
        Given("10.0.0.9/24", "10.0.0.1"),
        Given("2001:db8::1/64", None),
    ]
    assert choose((), ("10.9.0.1/24",), set(), {}) == [Given("10.9.0.1/24", None)]
    for wish, said in (
        ("10.0.0.9", "is taken"),
        ("10.0.0.1", "no station's"),
        ("10.9.0.1", "no st"),
    ):
        with pytest.raises(NoAddress, match=said):
            choose(both, (wish,), {"10.0.0.9"}, {})


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("x", "no list"),
        ([], None),
        ([[]], "no list"),
        ([["x"]], "no subnet"),
        ([[{"subnet": "10.42.0.1/16"}]], "no subnet"),
        ([[{"subnet": "10.0.0.0/8", "range": "x"}]], "no such key"),
        ([[{"subnet": "10.0.0.0/8", "rangeStart": "11.0.0.1"}]], "not in"),
        ([[{"subnet": "10.0.0.0/8", "rangeStart": "x"}]], "no IP address"),
        ([[{"subnet": "10.0.0.0/8", "rangeStart": "10.0.0.9", "rangeEnd": "10.0.0.8"}]], "empty"),
        ([[{"subnet": "10.0.0.0/8"}] * 65], "more than 64"),
    ],
)
def test_ranges_that_are_wrong_say_how(value: Any, said: str | None) -> None:
    if said is None:
        assert range_sets(value) == ()
        return
    with pytest.raises(ValueError, match=said):
        range_sets(value)


@given(st.integers(20, 32), st.sets(st.integers(0, 4095)), st.integers(0, 4095))
def test_what_is_given_is_free_and_in_the_range(length: int, used: set[int], last: int) -> None:
    subnet = ipaddress.ip_network(f"10.0.0.0/{length}")
    taken = {str(subnet.network_address + n) for n in used}
    after = {str(subnet): str(ipaddress.ip_address("10.0.0.0") + last)}
    stations = {str(host) for host in subnet.hosts()}
    try:
        (found,) = choose(sets({"subnet": str(subnet)}), (), taken, after)
    except NoAddress:
        assert stations <= taken
    else:
        assert found.cidr.partition("/")[0] in stations - taken
