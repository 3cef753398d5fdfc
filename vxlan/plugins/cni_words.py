"""The words of CNI: errors, versions, what a runtime hands over.  Source: CNI SPEC 1.1.0.

Everything here comes from outside, so everything is checked before it is used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

VERSIONS = ("0.4.0", "1.0.0", "1.1.0")
"""The versions of the specification that are spoken here."""

NEWEST = VERSIONS[-1]
TYPE = "pyvxlan-cni"

INCOMPATIBLE, UNKNOWN_CONTAINER, ENVIRONMENT, INPUT_OUTPUT = 1, 3, 4, 5
UNREADABLE, CONFIGURATION, LATER = 6, 7, 11
NOT_READY = 50
FAILED, CONFLICT = 100, 101
"""Error codes; those from 100 on are ours."""

_CONTAINER = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")
_NETWORK = _CONTAINER
_NEEDED = {
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME"),
    "GC": (),
    "STATUS": (),
    "VERSION": (),
}
VERBS = tuple(_NEEDED)


class CniError(Exception):
    """What is printed as an error: a code of the specification, the cause, the remedy."""

    def __init__(self, code: int, cause: str, remedy: str = "") -> None:
        super().__init__(f"{cause}: {remedy}" if remedy else cause)
        self.code, self.cause, self.remedy = code, cause, remedy

    @classmethod
    def of(cls, code: int, sentence: str) -> CniError:
        """Out of one line of ours, `cause: remedy`."""
        cause, colon, remedy = sentence.rpartition(": ")
        return cls(code, cause, remedy) if colon else cls(code, sentence)

    def as_json(self, version: str) -> dict[str, Any]:
        """In the form of the specification."""
        return {
            "cniVersion": version,
            "code": self.code,
            "msg": self.cause,
            "details": self.remedy,
        }


class Call(NamedTuple):
    """One call of the plugin: the environment that counts."""

    verb: str
    container: str
    netns: str
    ifname: str
    path: str
    args: Mapping[str, str]


def call_of(environment: Mapping[str, str]) -> Call:
    """The call that an environment describes.  Raises CniError."""
    verb = environment.get("CNI_COMMAND", "")
    if verb not in _NEEDED:
        cause = f"CNI_COMMAND is {verb!r}" if verb else "CNI_COMMAND is not set"
        raise CniError(
            ENVIRONMENT, cause, f"a container runtime sets it to one of {', '.join(VERBS)}"
        )
    missing = [name for name in _NEEDED[verb] if not environment.get(name)]
    if missing:
        raise CniError(ENVIRONMENT, f"{', '.join(missing)} not set", "the runtime has to set them")
    container, ifname = environment.get("CNI_CONTAINERID", ""), environment.get("CNI_IFNAME", "")
    if verb != "VERSION" and container and not _CONTAINER.fullmatch(container):
        raise CniError(ENVIRONMENT, f"CNI_CONTAINERID {container!r} is no container's id")
    if verb in ("ADD", "CHECK", "DEL") and not _is_ifname(ifname):
        raise CniError(ENVIRONMENT, f"CNI_IFNAME {ifname!r} is no interface's name")
    return Call(
        verb,
        container,
        environment.get("CNI_NETNS", ""),
        ifname,
        environment.get("CNI_PATH", ""),
        _pairs(environment.get("CNI_ARGS", "")),
    )


def _is_ifname(name: str) -> bool:
    return name not in (".", "..") and len(name) <= 15 and not re.search(r"[\s/:%]", name)


def _pairs(text: str) -> dict[str, str]:
    """`A=1;B=2`; what has no name is no pair."""
    words = (word.partition("=") for word in text.split(";"))
    return {name.strip(): value.strip() for name, equals, value in words if equals}


def check_conf(conf: object) -> dict[str, Any]:
    """A network configuration whose version and name can be relied on.  Raises CniError."""
    if not isinstance(conf, dict):
        raise CniError(UNREADABLE, "the network configuration is no JSON object", "write one")
    version = conf.get("cniVersion")
    if version not in VERSIONS:
        raise CniError(
            INCOMPATIBLE,
            f"cniVersion {version!r} is not spoken here",
            f"write one of {', '.join(VERSIONS)}",
        )
    name = conf.get("name")
    if not isinstance(name, str) or not _NETWORK.fullmatch(name):
        raise CniError(CONFIGURATION, f"name {name!r} is no network's name", "use letters, digits")
    for key in ("ipam", "args", "runtimeConfig", "prevResult", "dns"):
        if not isinstance(conf.get(key) or {}, dict):
            raise CniError(CONFIGURATION, f"{key} is no JSON object", "write it in braces")
    return conf


def asked(conf: Mapping[str, Any], call: Call, key: str) -> Any:
    """What a user asks for one container: runtimeConfig, then args.cni, then CNI_ARGS."""
    given = (conf.get("runtimeConfig") or {}).get(key)
    if not given:
        cni = (conf.get("args") or {}).get("cni")
        given = cni.get(key) if isinstance(cni, dict) else None
    if not given:
        given = call.args.get({"ips": "IP", "mac": "MAC"}.get(key, key.upper()))
        given = given.split(",") if given and key == "ips" else given
    return given or None


def names_of(conf: Mapping[str, Any], call: Call) -> list[str]:
    """What the runtime calls the container, and its aliases in this network."""
    aliases = (conf.get("runtimeConfig") or {}).get("aliases") or []
    if isinstance(aliases, dict):
        aliases = aliases.get(conf["name"]) or []
    first = [call.args["K8S_POD_NAME"]] if call.args.get("K8S_POD_NAME") else []
    return first + [one for one in aliases if isinstance(one, str)]
