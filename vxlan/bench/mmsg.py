"""sendmmsg(2) and recvmmsg(2): many small datagrams for each system call.

Python's own `send` costs more than the path that is to be measured.  One call here
moves up to `batch` datagrams of one size between the kernel and one flat buffer,
laid out so that the whole batch can be compared with what was expected in one go.
"""

from __future__ import annotations

import ctypes
import os
import socket

_libc = ctypes.CDLL(None, use_errno=True)
_MSG_WAITFORONE = 0x10000


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Msghdr(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("namelen", ctypes.c_uint32),
        ("iov", ctypes.POINTER(_Iovec)),
        ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Mmsghdr(ctypes.Structure):
    _fields_ = (("header", _Msghdr), ("length", ctypes.c_uint32))


class Batch:
    """Room for `count` datagrams, `stride` bytes each, and the calls that use it."""

    def __init__(self, count: int, stride: int) -> None:
        self.count, self.stride = count, stride
        self.buffer = bytearray(count * stride)
        self._flat = (ctypes.c_char * len(self.buffer)).from_buffer(self.buffer)
        start = ctypes.addressof(self._flat)
        self._iovecs = (_Iovec * count)(*(_Iovec(start + i * stride, stride) for i in range(count)))
        self._messages = (_Mmsghdr * count)()
        for message, iovec in zip(self._messages, self._iovecs, strict=True):
            message.header.iov, message.header.iovlen = ctypes.pointer(iovec), 1
        words = memoryview(self._messages).cast("B").cast("I")
        each = ctypes.sizeof(_Mmsghdr) // 4
        self._lengths = words[_Mmsghdr.length.offset // 4 :: each]

    def send(self, descriptor: int) -> int:
        """Send all of it on a connected socket; how many went.  Raises OSError."""
        return _checked(_libc.sendmmsg(descriptor, self._messages, self.count, 0))

    def receive(self, descriptor: int) -> list[int]:
        """Wait for one datagram, take what else is there; their lengths.  Raises OSError."""
        taken = _libc.recvmmsg(descriptor, self._messages, self.count, _MSG_WAITFORONE, None)
        return self._lengths[: _checked(taken)].tolist()


def _checked(answer: int) -> int:
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return answer


def udp_socket(address: str) -> socket.socket:
    """A UDP socket of the address's family."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.socket(family, socket.SOCK_DGRAM)
