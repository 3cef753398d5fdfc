"""`pyvxlan lab fault`: faults from the start, by command, with the names of the lab."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from worlds import lab_of

from tests.clirun import complaint, run
from tests.topologies import PAIR
from vxlan.lab import RunningLab, ping

pytestmark = pytest.mark.namespaces

FROM_THE_START = f"""{PAIR}
[[host.fault]]
kind   = "drop"
proto  = "icmp"
remote = "a"
side   = "encap"
"""


@pytest.fixture(scope="module")
def there(labs: Path) -> RunningLab:
    return lab_of(labs, FROM_THE_START)


def answered(lab: RunningLab) -> bool:
    return ping(lab.containers["c1"], lab.containers["c2"].address, timeout=0.5).received == 1


def texts(lab: RunningLab, host: str) -> list[str]:
    listed = run("lab", "fault", host, "list", "--json", "--lab", lab.name)
    return [one["text"] for one in json.loads(listed.stdout)]


def test_a_fault_of_the_file_is_there_until_it_is_cleared(
    there: RunningLab, tmp_path: Path
) -> None:
    assert texts(there, "b") == ["drop remote 192.0.2.1 proto icmp encap side"]
    assert not answered(there)
    there.hosts["b"].node.stop()
    there.restart_nodes()
    assert len(texts(there, "b")) == 1
    assert run("lab", "fault", "b", "clear", "1").exit_code == 0
    assert texts(there, "b") == []
    assert answered(there)


def test_names_of_the_lab_are_understood(there: RunningLab) -> None:
    there.hosts["a"].node.call("fault.clear")
    result = run("lab", "fault", "a", "add", "drop", "--remote", "b", "--mac", "c2")
    assert result.exit_code == 0, result.stderr
    assert texts(there, "a") == ["drop remote 192.0.2.2 mac 02:42:0a:2a:00:0c"]
    assert run("lab", "fault", "a", "clear").exit_code == 0
    assert texts(there, "a") == []


def test_what_takes_no_faults_is_one_line(there: RunningLab) -> None:
    assert "has no host zz" in complaint(run("lab", "fault", "zz", "list"), 1)
    assert "no host with a VTEP" in complaint(run("lab", "fault", "c1", "list"), 1)
    assert "no fault 77" in complaint(run("lab", "fault", "a", "clear", "77"), 1)
    assert "share" in complaint(run("lab", "fault", "a", "add", "drop", "--share", "7"), 2)


def test_bytes_are_sent_and_compared(there: RunningLab) -> None:
    result = run("lab", "send", "c1", "c2", "--bytes", "50000")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.startswith("50000 bytes arrived whole, in ")
    there.hosts["a"].node.call("fault.add", kind="drop", proto="tcp")
    failed = run("lab", "send", "c1", "c2", "--timeout", "0.5")
    assert "no TCP from c1 to c2, 10.42.0.12: timed out" in complaint(failed, 1)
    there.hosts["a"].node.call("fault.clear")
    assert "has no host zz" in complaint(run("lab", "send", "zz", "c1"), 1)
