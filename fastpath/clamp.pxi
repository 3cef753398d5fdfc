# Included by _fastpath.pyx.  The clamp of mtu.pxd under the name that it has in vxlan/clamp.py.

from mtu cimport clamp_mss as lower_mss, may_be_syn


def clamp_mss(bytes frame not None, int64_t mtu, most: int | None = None) -> bytes:
    """The frame, its MSS lowered to what `mtu` and `most` allow if it is a SYN.

    Returns the very same object where nothing has to change.  Raises ValueError under 14 bytes.
    """
    cdef Py_ssize_t length = PyBytes_GET_SIZE(frame)
    cdef bytes changed
    if length < wire.ETH_HLEN:
        raise ValueError(f"{length} bytes are no Ethernet frame: it has at least 14")
    if not may_be_syn(start_of(frame), length):
        return frame
    changed = PyBytes_FromStringAndSize(PyBytes_AS_STRING(frame), length)
    if lower_mss(<uint8_t *>PyBytes_AS_STRING(changed), length, mtu, -1 if most is None else most):
        return changed
    return frame
