"""Network namespaces, and netlink sessions inside them.

Theory of operation
===================

A namespace has a name when it is mounted on /run/netns/NAME, as `ip netns add`
does.  A thread is in one namespace at a time; a socket, a TAP and a netlink
session belong for ever to the namespace in which their thread made them.

`inside(name)` moves the calling thread and brings it back.  What is opened in
between stays in that namespace and can be used from anywhere:

    with netns.inside("h1"):
        underlay = Underlay(("192.0.2.1",), 4789)

`netlink(name)` gives a synchronous pyroute2 session in a namespace.  pyroute2
runs each request on an event loop of its own, which fails in a thread whose loop
is running, and uvloop cannot carry netlink at all.  So the session is always
made with a plain selector loop, and where a loop runs already the functions of
vxlan.netdev belong into `asyncio.to_thread`; calling them directly is refused
with a NetdevError that says so, not with a hang.

pyroute2 raises NetlinkError with an errno and often the kernel's own sentence;
here it becomes NetdevError: one line with the remedy where there is one.
"""

from __future__ import annotations

import asyncio
import errno
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

from vxlan.ifname import check_ifname
from vxlan.netlazy import IPRoute, NetlinkError, kernel

RUN_DIR = kernel.NETNS_RUN_DIR

_SELF = "/proc/thread-self/ns/net"

_REMEDIES = {
    errno.EPERM: "not permitted: run as root or with CAP_NET_ADMIN",
    errno.EACCES: "not permitted: run as root or with CAP_NET_ADMIN",
    errno.EEXIST: "it exists already",
    errno.ENODEV: "there is no such interface",
    errno.EOPNOTSUPP: "this kernel has no support for it",
    errno.EBUSY: "it is in use",
}


class NetdevError(Exception):
    """A request to the kernel's network configuration failed; one line with the remedy.

    `errno` is the kernel's answer, or None.
    """

    def __init__(self, text: str, code: int | None = None) -> None:
        super().__init__(text)
        self.errno = code


def names() -> list[str]:
    """The named namespaces of this host."""
    try:
        return sorted(os.listdir(RUN_DIR))
    except FileNotFoundError:
        return []


def create(name: str) -> None:
    """Make a named namespace; its loopback is down.  NetdevError if the name is taken."""
    _check(name)
    if name in names():
        raise NetdevError(f"netns {name}: it exists already: choose another name", errno.EEXIST)
    with _explained(f"netns {name}"):
        _make_folder()
        kernel.create(name)


def _make_folder() -> None:
    """As `ip netns add` makes it, whatever our umask is: others look there, too."""
    with suppress(FileExistsError):
        os.mkdir(RUN_DIR)
        os.chmod(RUN_DIR, 0o755)


def delete(name: str) -> None:
    """Remove the name; the namespace goes with its last process, socket and descriptor."""
    _check(name)
    with _explained(f"netns {name}"):
        kernel.remove(name)


def exists(name: str) -> bool:
    """Whether a namespace of that name exists."""
    return os.path.exists(os.path.join(RUN_DIR, name))


@contextmanager
def inside(name: str | None) -> Iterator[None]:
    """Move the calling thread into a namespace and back; None stays where it is."""
    if name is None:
        yield
        return
    target = opened(name)
    try:
        with _explained(f"netns {name}"):
            home = os.open(_SELF, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with _explained(f"netns {name}"):
                kernel.setns(target)
            try:
                yield
            finally:
                kernel.setns(home)
        finally:
            os.close(home)
    finally:
        os.close(target)


def opened(name: str | None) -> int:
    """A descriptor of a named namespace, None: the caller's; the caller closes it."""
    if name is not None:
        _check(name)
    try:
        path = _SELF if name is None else os.path.join(RUN_DIR, name)
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NetdevError(
            f"netns {name}: there is none of that name: `ip netns add {name}` makes it",
            errno.ENOENT,
        ) from None
    except OSError as error:
        raise NetdevError(f"netns {name or 'here'}: {error.strerror}", error.errno) from None


@contextmanager
def netlink(name: str | None, what: str) -> Iterator[Any]:
    """A pyroute2 IPRoute in a namespace; errors become NetdevError that begins with `what`."""
    _refuse_running_loop(what)
    loop = asyncio.SelectorEventLoop()
    try:
        with _explained(what):
            with inside(name) if name else nullcontext():
                session = IPRoute(use_event_loop=loop, ext_ack=True)
            try:
                yield session
            finally:
                session.close()
    finally:
        loop.close()


def _refuse_running_loop(what: str) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise NetdevError(f"{what}: called in a running event loop: use asyncio.to_thread")


def _check(name: str) -> None:
    if not name or "/" in name or name in (".", "..") or not name.isprintable():
        raise NetdevError(f"netns {name!r} is no name: use letters, digits, - _ .", errno.EINVAL)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        code, said = error.code, str(error.args[1] if len(error.args) > 1 else "")
        raise NetdevError(f"{what}: {_remedy(code, said)}", code) from error
    except OSError as error:
        raise NetdevError(f"{what}: {_remedy(error.errno, '')}", error.errno) from error
    except struct.error as error:  # pyroute2 packs before it asks
        raise NetdevError(f"{what}: a number is out of range", errno.EINVAL) from error


def _remedy(code: int | None, said: str) -> str:
    text = os.strerror(code) if code else "refused"
    return _REMEDIES.get(code or 0) or said or text


def index_of(session: Any, name: str) -> int:
    """The number of an interface; NetlinkError (ENODEV) inside a `netlink` block."""
    return int(session.link("get", ifname=check_ifname(name))[0]["index"])


def name_of(session: Any, index: int) -> str:
    """The name of an interface by its number."""
    return str(session.link("get", index=index)[0].get_attr("IFLA_IFNAME"))
