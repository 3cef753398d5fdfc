"""`python -m vxlan.lab.demo` shows the main job, fails plainly, and leaves nothing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vxlan import netns
from vxlan.lab import LabError, demo

FIRST_STEP = "ARP: c1 asks everybody, and the question crosses the overlay\n"
DEMO = [sys.executable, "-m", "vxlan.lab.demo"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(demo.__file__).parents[2])}


def left_of(output: str) -> list[str]:
    """Namespaces of the demo that printed this; other demos may run beside it."""
    found = re.search(r"as network namespaces: (demo-[0-9a-f]+)-a,", output)
    assert found is not None
    return [name for name in netns.names() if name.startswith(found.group(1))]


@pytest.mark.namespaces
def test_the_demo_holds_and_leaves_nothing(engine_name: str) -> None:
    done = subprocess.run(
        [*DEMO, "--engine", engine_name],
        capture_output=True,
        text=True,
        timeout=60,
        env=ENVIRONMENT,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "10.42.0.11  who has 10.42.0.12?" in done.stdout
    assert "5 of 5 answered" in done.stdout
    assert "intact" in done.stdout
    assert "c2 is behind 192.0.2.2" in done.stdout
    assert re.search(r"VNI +00 00 2a +42", done.stdout)
    assert "VXLAN_VNI_NOT_FOUND" in done.stdout
    assert "\033" not in done.stdout
    assert left_of(done.stdout) == []


@pytest.mark.namespaces
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_interrupted_demo_leaves_nothing(number: signal.Signals, status: int) -> None:
    with subprocess.Popen(
        DEMO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as process:
        assert process.stdout is not None
        said = "".join(iter(process.stdout.readline, FIRST_STEP))
        assert left_of(said)
        process.send_signal(number)
        assert process.wait(20) == status
    nodes = re.findall(r"pyvxlan runs, pid (\d+)", said)
    assert len(nodes) == 2
    assert not [pid for pid in nodes if Path("/proc", pid).exists()]
    assert left_of(said) == []


@pytest.mark.namespaces
def test_a_step_that_fails_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(world: demo.World, screen: demo.Screen) -> None:
        raise LabError("the sky fell")

    monkeypatch.setattr(demo, "STEPS", (fails,))
    assert demo.main(["--engine", "python"]) == 1
    said = capsys.readouterr()
    assert said.err == "demo failed: the sky fell\n"
    assert left_of(said.out) == []


def test_without_root_one_line_says_what_is_needed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert demo.main([]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "root" in said


def test_usage() -> None:
    with pytest.raises(SystemExit) as ended:
        demo.main(["--engine", "warp"])
    assert ended.value.code == 2
