"""Addresses from another plugin: CNI delegation, as to host-local.

The plugin is looked for in CNI_PATH, gets our environment and configuration, and answers
in JSON (CNI SPEC, "Execution of Network Configurations", "Delegated Plugins").  A plugin
that does not speak 1.1.0 gets the configuration in the version 1.0.0, which for
addresses says the same.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from vxlan.plugins.cni_words import CONFIGURATION, FAILED, NEWEST, TYPE, Call, CniError

OLDER = "1.0.0"
TIMEOUT = 30.0
"""Seconds that a delegate is given."""


def delegate_of(conf: Mapping[str, Any]) -> str | None:
    """The name of the plugin that has the addresses; None: the node, or there are none."""
    kind = (conf.get("ipam") or {}).get("type")
    if kind in (None, "", TYPE):
        return None
    if not isinstance(kind, str) or "/" in kind or kind in (".", ".."):
        raise CniError(CONFIGURATION, f"ipam.type {kind!r} is no plugin's name", "write one")
    return kind


def run(verb: str, kind: str, conf: Mapping[str, Any], call: Call) -> dict[str, Any]:
    """What the delegate answers.  Raises CniError, its own where it answers with one."""
    path = _find(kind, call)
    asked = dict(conf)
    if conf["cniVersion"] == NEWEST and NEWEST not in _versions(path):
        if verb in ("STATUS", "GC"):
            return {}
        asked["cniVersion"] = OLDER
    return _execute(path, verb, asked)


def _find(kind: str, call: Call) -> str:
    for folder in filter(None, call.path.split(":")):
        path = os.path.join(folder, kind)
        if os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    raise CniError(
        CONFIGURATION,
        f"there is no ipam plugin {kind} in CNI_PATH ({call.path})",
        f'install it, or write "type": "{TYPE}"',
    )


def _versions(path: str) -> list[str]:
    told = _execute(path, "VERSION", {"cniVersion": NEWEST}).get("supportedVersions", [])
    return [one for one in told if isinstance(one, str)]


def _execute(path: str, verb: str, conf: Mapping[str, Any]) -> dict[str, Any]:
    import subprocess  # takes a while to import, and most need no delegate

    name = os.path.basename(path)
    try:
        done = subprocess.run(
            [path],
            input=json.dumps(conf).encode(),
            env={**os.environ, "CNI_COMMAND": verb},
            stdout=subprocess.PIPE,
            timeout=TIMEOUT,
            check=False,
        )
        answer = json.loads(done.stdout) if done.stdout.strip() else {}
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise CniError(FAILED, f"ipam {name} {verb}: {error}") from None
    if not isinstance(answer, dict):
        raise CniError(FAILED, f"ipam {name} {verb}: it answered with no JSON object")
    if done.returncode:
        raise _refusal(name, verb, answer)
    return answer


def _refusal(name: str, verb: str, answer: Mapping[str, Any]) -> CniError:
    code, text = answer.get("code"), str(answer.get("msg") or "it failed without a reason")
    return CniError(
        code if isinstance(code, int) else FAILED,
        f"ipam {name} {verb}: {text}",
        str(answer.get("details") or ""),
    )
