"""The directions in which modules may import each other, read from their source.

    core  <-  edges  <-  python engine                 engine.py opens both engines, late
    core  <-  edges  <-  node  <-  faces               which know neither by name

The core is sans-IO: it imports the standard library without clock, socket or log.
Each third party comes in at one door.  What stands under `if TYPE_CHECKING` is for
the type checker and binds nothing.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple, TypeGuard

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Each module of the core imports only what stands before it.
LAYERS = {
    "core": """
        wire drop event engine ifname fdb mtu transport offload merge clamp icmp toobig pathmtu
        echo probe neighbour announcement announce segment paths fit vtep announcing fault faults
        outer sight sight_words recorder watched
        twin decision outer_read
    """,
    "edges": """
        tap* underlay* udpsock port* burst patherror net* host capabilities sdnotify bounded
        fdstore fdstate unixsock
        pcap* middleware*
    """,
    "python engine": "pyengine*",
    "compiled engine": "_fastpath fast*",
    "node": """
        explanation inner sample stations
        config* node* api* arguments attach* dnswire doctor* finding history ipam local_address
        metrics* operations overlay_mtu reload* report resolver statefile control*
    """,
    "faces": "holder bench* cli* lab* replay explain* plugins* __main__",
}
BELOW = {
    "core": {"core"},
    "edges": {"core", "edges"},
    "python engine": {"core", "edges", "python engine"},
    "compiled engine": {"core", "edges", "compiled engine"},
    "node": {"core", "edges", "node"},
    "faces": {"core", "edges", "node", "faces"},
}
NOT_IN_CORE = (
    "asyncio datetime io logging os pathlib select signal socket subprocess threading time"
)
DOORS = {
    "pytun": "tap*",
    "uvloop": "pyengine* node*",
    "pyroute2": "net*",
    "matplotlib": "bench.canvas bench.pictures",
    "scapy": "explain* lab*",
    "click": "cli*",
    "rich": "cli*",
}
LATE_ONLY = {"matplotlib", "scapy"}
ENGINES = {"pyengine", "fastengine", "_fastpath"}
TRAFFIC = ("bench.generator", "_fastpath")  # takes the loops that send, and no engine


class Import(NamedTuple):
    """One imported module; `late` if it stands in a function."""

    target: str
    late: bool


def matches(module: str, patterns: str) -> bool:
    return any(fnmatch(module, pattern) for pattern in patterns.split())


def layer_of(module: str) -> str | None:
    return next((name for name, patterns in LAYERS.items() if matches(module, patterns)), None)


def stands_before(one: str, other: str) -> bool:
    order = LAYERS["core"].split()
    return order.index(one) < order.index(other)


def is_for_types(node: ast.AST) -> TypeGuard[ast.If]:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def imports_of(tree: ast.AST, late: bool = False) -> Iterator[Import]:
    """Everything that is imported when the code runs."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, late) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (Import(target, late) for target in targets_of(node))
        elif is_for_types(node):
            yield from (found for other in node.orelse for found in imports_of(other, late))
        else:
            inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from imports_of(node, late or inside)


def targets_of(node: ast.ImportFrom) -> list[str]:
    """`from vxlan import a, b` imports the modules a and b; otherwise what stands after from."""
    assert node.level == 0, f"line {node.lineno}: imports here are absolute"
    if node.module == "vxlan":
        return [f"vxlan.{alias.name}" for alias in node.names if alias.name != "__version__"]
    return [node.module or ""]


def complaints(module: str, source: str) -> Iterator[str]:
    """Each import of vxlan.`module` that goes in a forbidden direction, as a sentence."""
    for target, late in imports_of(ast.parse(source)):
        top, _, inner = target.partition(".")
        if top == "vxlan":
            yield from complaints_inside(module, inner, late)
        elif top in sys.stdlib_module_names:
            if layer_of(module) == "core" and matches(top, NOT_IN_CORE):
                yield f"{module} is core and imports {top}"
        else:
            yield from complaints_outside(module, top, late)


def complaints_inside(module: str, target: str, late: bool) -> Iterator[str]:
    own, other = layer_of(module), layer_of(target)
    assert own is not None, f"{module} has no layer: give it one in LAYERS"
    if module == "engine" and target in ENGINES:
        if not late:
            yield f"engine imports {target} at its head"
    elif other not in BELOW[own] and (module, target) != TRAFFIC:
        yield f"{module} ({own}) imports {target} ({other})"
    elif own == "core" and not stands_before(target, module):
        yield f"{module} imports {target}, which does not stand before it in the core"
    elif own == "edges" and matches(target, "vtep* segment*"):
        yield f"{module} is an edge and imports {target}"


def complaints_outside(module: str, third: str, late: bool) -> Iterator[str]:
    if third not in DOORS:
        yield f"{module} imports {third}, which has no door"
    elif not matches(module, DOORS[third]):
        yield f"{module} imports {third}, whose door is {DOORS[third]}"
    elif third in LATE_ONLY and not late:
        yield f"{module} imports {third} at its head"


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT / "vxlan").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = sorted(path for path in (ROOT / "vxlan").rglob("*.py") if name_of(path))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_one_way(path: Path) -> None:
    assert layer_of(name_of(path)) is not None, (
        "a new module needs a place in LAYERS, at the head of this test"
    )
    assert list(complaints(name_of(path), path.read_text())) == []


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("wire", "import socket", "wire is core and imports socket"),
        ("fdb", "def f():\n    from time import monotonic", "fdb is core and imports time"),
        ("fdb", "from vxlan.segment import Segment", "fdb imports segment, which does not stand"),
        ("fdb", "import vxlan.tap", "fdb (core) imports tap (edges)"),
        ("tap", "from vxlan import vtep", "tap is an edge and imports vtep"),
        ("node", "from vxlan import pyengine", "node (node) imports pyengine (python engine)"),
        ("cli.up", "import vxlan._fastpath", "cli.up (faces) imports _fastpath (compiled"),
        ("api", "from vxlan.cli import main", "api (node) imports cli (faces)"),
        ("engine", "from vxlan.pyengine import PythonEngine", "engine imports pyengine at its"),
        ("node", "import pyroute2", "node imports pyroute2, whose door is net*"),
        ("lab.demo", "from scapy.all import Ether", "lab.demo imports scapy at its head"),
        ("vtep", "import numpy", "vtep imports numpy, which has no door"),
        ("node", "from bench import latency", "node imports bench, which has no door"),
        ("node", "from tests.frames import udp", "node imports tests, which has no door"),
    ],
)
def test_a_wrong_direction_is_found(module: str, source: str, complaint: str) -> None:
    (found,) = complaints(module, source)
    assert found.startswith(complaint)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("vtep", "from vxlan.segment import Segment\nimport re"),
        ("event", "if TYPE_CHECKING:\n    from vxlan.fdb import Remote"),
        ("engine", "def choose():\n    from vxlan._fastpath import FastEngine"),
        ("explain", "def walk():\n    from scapy.layers.l2 import Ether"),
        ("cli.show", "import click\nfrom vxlan import __version__, api"),
        ("bench.generator", "from vxlan import _fastpath"),
    ],
)
def test_a_right_direction_passes(module: str, source: str) -> None:
    assert list(complaints(module, source)) == []


# -- the Cython sources -----------------------------------------------------------------

CYTHON = sorted((ROOT / "fastpath").glob("*.p[xy][dxi]"))
CYTHON_IMPORT = re.compile(r"^\s*(?:from\s+(\S+)\s+c?import|c?import\s+(\S+))", re.MULTILINE)


@pytest.mark.parametrize("path", CYTHON, ids=lambda path: str(path.name))
def test_fastpath_needs_libc_and_itself_alone(path: Path) -> None:
    known = {"libc", "posix", "cpython", "cython"} | {other.stem for other in CYTHON}
    found = {left or right for left, right in CYTHON_IMPORT.findall(path.read_text())}
    assert {target.partition(".")[0] for target in found} <= known


# -- every source file --------------------------------------------------------------------

SOURCES = sorted(
    path
    for folder in ("vxlan", "fastpath", "tests", "bench")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in {".py", ".pyi", ".pyx", ".pxd", ".pxi"}
)
MAX_LINES = 500
UNFINISHED = re.compile("|".join(("TO" + "DO", "FIX" + "ME", "X" * 3, "HA" + "CK")))
HOME = re.compile(r"(?<![\w.$}])/(?:root|home|work)/")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_source_is_short_finished_and_runs_anywhere(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= MAX_LINES, "a file of this length has more than one job"
    assert UNFINISHED.findall(text) == []
    assert HOME.findall(text) == [], "a path of one machine"
