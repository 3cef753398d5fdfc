"""One TAP device: opened, read, written.  No policy.

Theory of operation
===================

A TAP is a network device whose cable ends in a file descriptor.  `read` takes
one frame that the kernel sent into the device, `write` gives it one to receive.

    kernel (bridge, addresses)  <->  TAP NAME  <->  fd  <->  engine

Every frame is preceded by a `struct virtio_net_hdr` of 10 bytes, native byte
order (include/uapi/linux/virtio_net.h):

    flags u8 | gso_type u8 | hdr_len u16 | gso_size u16 | csum_start u16 | csum_offset u16

It is there even when no offload was asked for, because a peer on this host may
send inner packets whose checksum was never computed, or TCP packets longer than
any MTU.  Only this header can hand such packets on to the kernel as what they
are; without it TCP with a kernel peer over veth never connects.

`open` makes a new device and never takes over one that exists (IFF_TUN_EXCL):
frames of a device that somebody else reads would go to either reader by chance.
The device goes away with its last descriptor.

A persistent one stays, and `open` attaches to it again.  It always takes several queues,
whoever opens it next, because the kernel never changes that of a device.  Without any
queue it has no carrier, and neither have the links that share it; a queue that rests
gets no frame and keeps the carrier.

`adopt` goes on with descriptors that somebody held meanwhile (vxlan/fdstore.py): what
the kernel sent in the time between still waits in them.

What becomes of a frame when the device is not there for it:

    device down      read: nothing to read       write: EIO      -> TAP_DOWN
    device deleted   read: EBADFD -> TapLost     write: EBADFD   -> TAP_DOWN

A descriptor of a deleted device reports POLLERR for ever.  `Tap` cannot mend
that: its owner closes it and opens another.

The device is python-pytun's; what pytun has no call for (size of the header,
offloads) goes through ioctl on its descriptor.  The MTU is set by vxlan.netdev.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytun

from vxlan.drop import Drop
from vxlan.ifname import check_ifname

VNET_HDR_LEN = 10
"""Bytes of `struct virtio_net_hdr` before every frame."""

READ_SIZE = VNET_HDR_LEN + 65535 + 18 + 8
"""The longest thing one read returns: an IP packet of 64 KiB with Ethernet and two tags."""

_TUNGETDEVNETNS = 0x54E3
_TUNSETVNETHDRSZ = 0x400454D8
_TUNSETOFFLOAD = 0x400454D0
_TUNSETQUEUE = 0x400454D9
_TUNGETIFF = 0x800454D2
_IFF_DETACH_QUEUE = 0x0400
_SIOCSIFHWADDR = 0x8924
_SIOCSIFTXQLEN = 0x8943
_ARPHRD_ETHER = 1

_TUN_F_CSUM = 0x01
_OFFLOADS = (("tso4", 0x02), ("tso6", 0x04), ("tso_ecn", 0x08), ("uso4+uso6", 0x20 | 0x40))
"""In the order in which they are probed; the kernel takes USO only for both families at once."""

_BUSY = frozenset((errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.EINTR))
_LOST = frozenset((errno.EBADFD, errno.ENODEV, errno.EBADF, errno.ENXIO))


class TapError(Exception):
    """The TAP cannot be made; the text is one line with the remedy."""


class TapLost(Exception):
    """The device was deleted: this descriptor is dead for ever."""


@dataclass(slots=True)
class Tap:
    """An open TAP.  Whoever opened it closes it; engines only read and write.

    fds       one descriptor for each queue, non-blocking
    granted   what the kernel granted, by the word of `fallbacks`
    fallbacks one sentence for each thing that was wanted and not granted
    adopted   somebody else opened it: the bare descriptors are ours to close
    """

    name: str
    fds: tuple[int, ...]
    granted: dict[str, bool] = field(default_factory=dict)
    fallbacks: list[str] = field(default_factory=list)
    adopted: bool = False
    _devices: list[pytun.TunTapDevice] = field(default_factory=list, repr=False)

    @classmethod
    def open(
        cls,
        name: str,
        *,
        mac: bytes | None = None,
        offload: bool = False,
        queues: int = 1,
        txqueuelen: int = 4000,
        persist: bool = False,
    ) -> Tap:
        """Make the TAP `name` in the caller's namespace; it is down.

        offload asks for checksum and segmentation offload, so that one read gives
        up to 64 KiB of one flow.  txqueuelen, in frames, bounds what waits for a
        late reader.  persist makes a device that stays, or attaches to one that did.
        Raises TapError.
        """
        try:
            check_ifname(name)
        except ValueError as error:
            raise TapError(f"tap: {error}") from None
        tap = cls(name, ())
        try:
            tap._add_queues(queues, persist)
            tap._set_offload(offload)
            tap._set_link(mac, txqueuelen)
            if persist:
                tap._devices[0].persist(True)
        except OSError as error:
            tap.close()
            raise TapError(_explain(name, error)) from error
        except TapError:
            tap.close()
            raise
        return tap

    @classmethod
    def adopt(
        cls,
        name: str,
        fds: Sequence[int],
        *,
        offload: bool = False,
        queues: int = 1,
        persist: bool = False,
    ) -> Tap:
        """The TAP behind descriptors that were held while nobody read them.

        `name` is what it was made as; the device may have another one by now, and be in
        another namespace.  Raises TapError where it is not what `open` would have made,
        and then the descriptors stay the caller's.
        """
        if len(fds) != queues:
            raise TapError(f"tap {name}: {len(fds)} queues instead of {queues}")
        devices = {device_of(fd) for fd in fds}
        if len(devices) != 1 or devices.pop()[1] != _flags(queues > 1 or persist):
            raise TapError(f"tap {name}: made in another way than now")
        tap = cls(name, tuple(fds), adopted=True)
        for fd in fds:
            tap._set_queue(fd)
        tap._set_offload(offload)
        return tap

    @property
    def is_here(self) -> bool:
        """Whether the device is in the namespace of the calling thread (Linux 5.2 tells)."""
        try:
            there = fcntl.ioctl(self.fds[0], _TUNGETDEVNETNS)
        except OSError:
            return device_of(self.fds[0])[0] == self.name
        try:
            return os.path.samestat(os.fstat(there), os.stat("/proc/thread-self/ns/net"))
        finally:
            os.close(there)

    @property
    def fd(self) -> int:
        """The descriptor of the first queue."""
        return self.fds[0]

    def read(self) -> bytes | None:
        """virtio_net_hdr (10 bytes) and one frame, or None when none waits.

        A device that is down gives None.  Raises TapLost when it was deleted.
        """
        try:
            return os.read(self.fds[0], READ_SIZE)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno in _LOST:
                raise TapLost(f"tap {self.name}: the device was deleted") from None
            return None

    def write(self, header: bytes, frame: bytes) -> Drop | None:
        """Give the kernel one frame with its virtio_net_hdr; None when it was taken.

        TAP_BUSY, TAP_DOWN (also when it was deleted: `read` reports that) or
        TAP_INVALID (the header contradicts the frame, or the frame is a runt).
        """
        try:
            os.writev(self.fds[0], (header, frame))
        except OSError as error:
            return _drop_of(error.errno)
        return None

    @property
    def there(self) -> bool:
        """Whether the device has not been deleted."""
        try:
            device_of(self.fds[0])
        except TapError:
            return False
        return True

    def rest(self) -> None:
        """Get no frames from now on, and keep the carrier of a persistent device.  OSError."""
        for fd in self.fds:
            fcntl.ioctl(fd, _TUNSETQUEUE, struct.pack("16sH22x", b"", _IFF_DETACH_QUEUE))

    def close(self) -> None:
        """Let go of the device; it vanishes unless persistent.  May be called again."""
        for fd in self.fds if self.adopted else ():
            os.close(fd)
        self.fds = ()
        while self._devices:
            self._devices.pop().close()

    # -- set up -------------------------------------------------------------------

    def _add_queues(self, queues: int, persist: bool) -> None:
        if not 1 <= queues <= 256:
            raise TapError(f"tap {self.name}: {queues} queues: the kernel takes 1 to 256")
        flags = _flags(queues > 1 or persist)
        for index in range(queues):
            exclusive = pytun.IFF_TUN_EXCL if index == 0 and not persist else 0
            device = pytun.TunTapDevice(name=self.name, flags=flags | exclusive)
            self._devices.append(device)
            self.fds += (device.fileno(),)
            self._set_queue(device.fileno())

    def _set_queue(self, fd: int) -> None:
        os.set_blocking(fd, False)
        os.set_inheritable(fd, False)
        fcntl.ioctl(fd, _TUNSETVNETHDRSZ, struct.pack("i", VNET_HDR_LEN))
        self.granted["vnet_hdr"] = True

    def _set_offload(self, wanted: bool) -> None:
        """Offloads belong to the device, not to a queue: the first descriptor sets them."""
        if not wanted:
            self._try_offload(0)
            return
        flags = _TUN_F_CSUM
        self.granted["csum"] = self._try_offload(flags)
        for word, bits in _OFFLOADS:
            granted = self.granted["csum"] and self._try_offload(flags | bits)
            flags |= bits if granted else 0
            self.granted[word] = granted
        refused = [word for word, granted in self.granted.items() if not granted]
        if refused:
            self._try_offload(flags if self.granted["csum"] else 0)
            self.fallbacks.append(
                f"tap {self.name}: the kernel granted no {', '.join(refused)}: "
                "such traffic comes in frames of one MTU, one system call each"
            )

    def _try_offload(self, flags: int) -> bool:
        try:
            fcntl.ioctl(self.fds[0], _TUNSETOFFLOAD, flags)
        except OSError:
            return False
        return True

    def _set_link(self, mac: bytes | None, txqueuelen: int) -> None:
        if mac is not None:
            self._check_mac(mac)
            self._ifreq(_SIOCSIFHWADDR, struct.pack("H6s", _ARPHRD_ETHER, mac))
        try:
            self._ifreq(_SIOCSIFTXQLEN, struct.pack("i", txqueuelen))
        except OSError as error:
            self.fallbacks.append(
                f"tap {self.name}: txqueuelen {txqueuelen} refused ({error.strerror}): "
                "bursts may overflow the queue"
            )

    def _check_mac(self, mac: bytes) -> None:
        if len(mac) != 6 or mac[0] & 1 or not any(mac):
            raise TapError(
                f"tap {self.name}: {mac.hex(':')!r} is no station's MAC: "
                "six bytes, not zero, not a group address"
            )

    def _ifreq(self, request: int, data: bytes) -> None:
        """An ioctl by name: only right before the device can have been renamed or moved."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            fcntl.ioctl(control, request, struct.pack("16s24s", self.name.encode(), data))


def device_of(fd: int) -> tuple[str, int]:
    """Name and flags (IFF_TAP, ...) of the device behind a descriptor.  Raises TapError."""
    try:
        answer = fcntl.ioctl(fd, _TUNGETIFF, bytes(40))
    except OSError as error:
        lost = error.errno in _LOST
        raise TapError("its device was deleted" if lost else "it is no TAP") from None
    name, flags = struct.unpack_from("16sH", answer)
    return name.rstrip(b"\0").decode(errors="replace"), flags & _OWN_FLAGS


def _flags(many: bool) -> int:
    """What a TAP is made with, that may have many queues or only one."""
    several = pytun.IFF_MULTI_QUEUE if many else 0
    return int(pytun.IFF_TAP | pytun.IFF_NO_PI | pytun.IFF_VNET_HDR | several)


_OWN_FLAGS = 0xF | pytun.IFF_NO_PI | pytun.IFF_VNET_HDR | pytun.IFF_MULTI_QUEUE


def _drop_of(code: int | None) -> Drop:
    if code in _BUSY:
        return Drop.TAP_BUSY
    return Drop.TAP_INVALID if code == errno.EINVAL else Drop.TAP_DOWN


_REMEDIES = {
    errno.ENOENT: "there is no /dev/net/tun: load it with `modprobe tun`, "
    "or give the container --device /dev/net/tun",
    errno.ENODEV: "/dev/net/tun has no driver: load it with `modprobe tun`",
    errno.ENXIO: "/dev/net/tun has no driver: load it with `modprobe tun`",
    errno.EPERM: "not permitted: run as root or with CAP_NET_ADMIN",
    errno.EACCES: "/dev/net/tun may not be opened: run as root, or give this user access to it",
    errno.EBUSY: "an interface of that name exists: choose another name, "
    "or remove it with `ip link del {name}`",
    errno.EINVAL: "an interface of that name is none that can be opened: remove it with "
    "`ip link del {name}`",
    errno.E2BIG: "all of its queues are open: end the others who read it",
    errno.EADDRNOTAVAIL: "the MAC is refused: choose another",
}


def _explain(name: str, error: OSError) -> str:
    """Why a TAP could not be made, and what to do: one line."""
    remedy = _REMEDIES.get(error.errno or 0, str(error.strerror or error))
    return f"tap {name}: {remedy.format(name=name)}"
