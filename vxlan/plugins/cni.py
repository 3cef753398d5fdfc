"""`pyvxlan-cni`: pyvxlan segments as CNI networks (CNI SPEC 0.4.0 to 1.1.0).

Theory of operation
===================

A container runtime runs this program for each step of a container's life, with the step
in CNI_COMMAND and the network's configuration on standard input:

    {"cniVersion": "1.0.0", "name": "net42", "type": "pyvxlan-cni", "vni": 42,
     "ipam": {"type": "pyvxlan-cni", "ranges": [[{"subnet": "10.42.0.0/16",
              "rangeStart": "10.42.1.1", "rangeEnd": "10.42.1.254"}]]}}

    ADD      the node gives an address and a link; we move it into the container
    DEL      the node takes both back; what is not there is no error
    CHECK    is everything still as ADD left it
    STATUS   could ADD succeed
    GC       take back what belongs to no container that the runtime knows
    VERSION  which versions we speak

It answers with one JSON object, and with status 1 if that is an error.  It lives for
milliseconds and is run twice for each container, so it imports the standard library
alone, and of that no more than it needs: the verbs that need a node are in a file of their
own (vxlan/plugins/cni_verbs.py), which VERSION does without.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from vxlan.plugins.cni_words import (
    NEWEST,
    UNREADABLE,
    VERSIONS,
    Call,
    CniError,
    call_of,
    check_conf,
)


def main() -> int:
    """Serve one call; the exit status."""
    version, answer, status = NEWEST, None, 0
    try:
        call = call_of(os.environ)
        conf = _read()
        version = _version_of(conf)
        answer = _serve(call, conf)
    except CniError as error:
        answer, status = error.as_json(version), 1
    if answer is not None:
        sys.stdout.write(json.dumps(answer) + "\n")
    return status


def _read() -> Any:
    try:
        text = sys.stdin.buffer.read()
        return json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError) as error:
        cause = f"the network configuration is no JSON ({error})"
        raise CniError(UNREADABLE, cause, "mend it") from None


def _version_of(conf: Any) -> str:
    """In which version an error is told."""
    wanted = conf.get("cniVersion") if isinstance(conf, dict) else None
    return wanted if wanted in VERSIONS else NEWEST


def _serve(call: Call, conf: Any) -> dict[str, Any] | None:
    if call.verb == "VERSION":
        return {"cniVersion": _version_of(conf), "supportedVersions": list(VERSIONS)}
    conf = check_conf(conf)
    from vxlan.plugins import cni_verbs

    return cni_verbs.serve(call, conf)


if __name__ == "__main__":
    sys.exit(main())
