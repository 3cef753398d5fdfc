"""The parts of pyroute2 that are needed, without the half second that importing all of it takes.

The package's own `__init__` imports databases, firewalls and wireless networks.  While a
node that was killed starts again, packets wait in queues; so here the package is entered
without its `__init__`, which runs when somebody asks the package for a name that is not
there yet: others in this process find it complete.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any

__all__ = ["IPRoute", "MarshalRtnl", "NetlinkError", "kernel"]


def _enter(package: str) -> None:
    """Have a package whose `__init__` has not run; what is missing fails where it is imported."""
    spec = None if package in sys.modules else PathFinder.find_spec(package)
    if spec is None:
        return
    module = importlib.util.module_from_spec(spec)

    def complete(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if PathFinder.find_spec(f"{package}.{name}", module.__path__):
            return importlib.import_module(f"{package}.{name}")
        del module.__dict__["__getattr__"]
        _run(spec, module)
        return getattr(module, name)

    module.__dict__["__getattr__"] = complete  # PEP 562
    sys.modules[package] = module


def _run(spec: ModuleSpec, module: Any) -> None:
    if spec.loader is not None:
        spec.loader.exec_module(module)


_enter("pyroute2")

import pyroute2.config.log  # noqa: E402, F401  (keeps its warnings for those who log)
from pyroute2 import netns as kernel  # noqa: E402
from pyroute2.iproute.linux import IPRoute  # noqa: E402
from pyroute2.netlink.exceptions import NetlinkError  # noqa: E402
from pyroute2.netlink.rtnl.marshal import MarshalRtnl  # noqa: E402
