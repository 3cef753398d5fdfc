"""What is shipped: sdist, wheel with the extension, pure wheel, and a failing compiler.

Everything is built from a copy of the tree, without network, by the interpreter that
runs the tests, and tried from another folder, so that the tree cannot stand in for
what the wheel lacks.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import HeaderParser
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from vxlan import __version__

ROOT = Path(__file__).resolve().parent.parent
SWITCHES = ("PYVXLAN_NO_EXT", "PYVXLAN_REQUIRE_EXT", "CC", "CFLAGS", "LDSHARED", "PYTHONPATH")

pytestmark = [
    pytest.mark.skipif(not (ROOT / "pyproject.toml").exists(), reason="no source tree here"),
    *(
        pytest.mark.skipif(find_spec(tool) is None, reason=f"{tool} is not installed here")
        for tool in ("build", "setuptools", "Cython")
    ),
]


def run(*command: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name not in SWITCHES}
    return subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env=inherited | environ,
        capture_output=True,
        text=True,
        check=False,
    )


def build(kind: str, source: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return run("-m", "build", f"--{kind}", "--no-isolation", ".", cwd=source, **environ)


def only_file_in(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = tmp_path_factory.mktemp("checkout") / "pyvxlan"
    left_out = shutil.ignore_patterns(
        ".git", ".venv", ".*_cache", ".hypothesis", "build", "dist", "*.egg-info", "__pycache__"
    )
    shutil.copytree(ROOT, tree, ignore=left_out)
    done = build("sdist", tree)
    assert done.returncode == 0, done.stderr
    return only_file_in(tree / "dist")


class Unpacked:
    """A fresh source tree out of the sdist, and the wheels that are built in it."""

    def __init__(self, sdist: Path, folder: Path) -> None:
        # Python has the filter from 3.11.4 on
        filtered: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        with tarfile.open(sdist) as archive:
            archive.extractall(folder / "source", **filtered)
        self.source = only_file_in(folder / "source")
        self.installed = folder / "installed"

    def wheel(self, **environ: str) -> Path:
        done = build("wheel", self.source, **environ)
        assert done.returncode == 0, done.stdout + done.stderr
        return only_file_in(self.source / "dist")

    def install(self, wheel: Path) -> None:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(self.installed)

    def python(self, program: str) -> str:
        """What a program prints that has only the installed wheel."""
        done = run(
            "-c",
            WITHOUT_CHECKOUT + program,
            cwd=self.installed.parent,
            PYTHONPATH=str(self.installed),
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture
def unpacked(sdist: Path, tmp_path: Path) -> Unpacked:
    return Unpacked(sdist, tmp_path)


def names_in(archive: Path) -> set[str]:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return set(wheel.namelist())
    with tarfile.open(archive) as tar:
        return {member.partition("/")[2] for member in tar.getnames()}


def metadata_of(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(f"pyvxlan-{__version__}.dist-info/METADATA").decode()
    return HeaderParser().parsestr(text)


# An editable install has a finder of its own, which would lend the checkout's extension.
WITHOUT_CHECKOUT = """
import sys
sys.meta_path[:] = [one for one in sys.meta_path if "__editable__" not in repr(one)]
"""

WHICH_ENGINE = """
from vxlan.engine import choose_engine
print(choose_engine("auto", ["192.0.2.1"], 4789).info.name)
"""


# -- what is in the archives -----------------------------------------------------------


def test_sdist_can_be_built_and_tested_again(sdist: Path) -> None:
    names = names_in(sdist)
    wanted = {"setup.py", "Makefile", "LICENSE", "MANIFEST.in", ".ci/run", "vxlan/py.typed"}
    wanted |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "fastpath").glob("*.p*")}
    wanted |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("*.py")}
    assert wanted - names == set()


def test_sdist_holds_nothing_that_was_generated(sdist: Path) -> None:
    assert [name for name in names_in(sdist) if name.endswith((".c", ".so", ".pyc"))] == []


def test_wheel_with_the_extension(unpacked: Unpacked) -> None:
    wheel = unpacked.wheel(PYVXLAN_REQUIRE_EXT="1")
    names = names_in(wheel)
    own = f"pyvxlan-{__version__}"
    folders = {name.partition("/")[0] for name in names}
    assert folders == {"vxlan", f"{own}.dist-info", f"{own}.data"}
    assert {"vxlan/py.typed", "vxlan/_fastpath.pyi"} <= names
    lessons = (
        path.relative_to(ROOT / "docs/lab") for path in (ROOT / "docs/lab").rglob("??-*/**/*.*")
    )
    assert {f"vxlan/lab/lessons/{path.as_posix()}" for path in lessons} <= names
    page = (ROOT / "vxlan/lab/view/page").iterdir()
    assert {path.relative_to(ROOT).as_posix() for path in page} <= names
    assert f"{own}.data/data/share/man/man8/pyvxlan.8" in names
    for unit in ("pyvxlan@.service", "pyvxlan-docker.service"):
        assert f"{own}.data/data/lib/systemd/system/{unit}" in names
    assert sum(name.endswith(".so") for name in names) == 1
    unpacked.install(wheel)
    assert unpacked.python("from vxlan import _fastpath as f; print(f.checksum(b'ab'))") == "40605"


def test_pure_wheel_runs_with_the_python_engine(unpacked: Unpacked) -> None:
    wheel = unpacked.wheel(PYVXLAN_NO_EXT="1")
    assert wheel.name == f"pyvxlan-{__version__}-py3-none-any.whl"
    assert not any(name.endswith(".so") for name in names_in(wheel))
    unpacked.install(wheel)
    where = Path(unpacked.python("import vxlan; print(vxlan.__file__)"))
    assert where.is_relative_to(unpacked.installed)
    assert unpacked.python(WHICH_ENGINE) == "python"
    found = unpacked.python("from vxlan.lab import lesson; print(*map(str, lesson.lessons()))")
    assert found.count("Lesson(") == len(list((ROOT / "docs/lab").glob("??-*")))


# -- a compiler that fails --------------------------------------------------------------


def test_failing_compiler_leaves_the_python_engine_and_says_so(unpacked: Unpacked) -> None:
    done = build("wheel", unpacked.source, CC="false")
    assert done.returncode == 0, done.stderr
    assert "vxlan._fastpath was not built" in done.stdout + done.stderr
    unpacked.install(only_file_in(unpacked.source / "dist"))
    assert unpacked.python(WHICH_ENGINE) == "python"


def test_failing_compiler_is_an_error_where_the_extension_is_required(unpacked: Unpacked) -> None:
    done = build("wheel", unpacked.source, CC="false", PYVXLAN_REQUIRE_EXT="1")
    assert done.returncode != 0
    assert not (unpacked.source / "dist").exists() or not any((unpacked.source / "dist").iterdir())


# -- what the wheel says of itself -------------------------------------------------------


def test_metadata(unpacked: Unpacked) -> None:
    wheel = unpacked.wheel(PYVXLAN_NO_EXT="1")
    about = metadata_of(wheel)
    assert about["License-Expression"] == "MIT"
    assert about["Requires-Python"] == ">=3.11"
    needs = about.get_all("Requires-Dist", [])
    scapy = [need for need in needs if need.startswith("scapy")]
    assert {need.partition("; ")[2] for need in scapy} == {'extra == "lab"', 'extra == "test"'}
    with zipfile.ZipFile(wheel) as archive:
        scripts = archive.read(f"pyvxlan-{__version__}.dist-info/entry_points.txt").decode()
    assert scripts.splitlines() == [
        "[console_scripts]",
        "pyvxlan = vxlan.cli:main",
        "pyvxlan-cni = vxlan.plugins.cni:main",
        "pyvxlan-netavark = vxlan.plugins.netavark:main",
    ]


def test_the_command_starts_without_scapy(unpacked: Unpacked) -> None:
    unpacked.install(unpacked.wheel(PYVXLAN_NO_EXT="1"))
    program = "import sys; sys.modules['scapy'] = None; from vxlan.cli import main; main()"
    done = run(
        "-c", program, "--version", cwd=unpacked.source.parent, PYTHONPATH=str(unpacked.installed)
    )
    assert done.returncode == 0, done.stderr
    assert __version__ in done.stdout
