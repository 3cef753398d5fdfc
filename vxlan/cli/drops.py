"""Reasons for discards in words."""

from __future__ import annotations

from vxlan.drop import Drop


def drop_text(name: str) -> tuple[str, str]:
    """Meaning and remedy; a node newer than this program may have other reasons."""
    if name not in Drop.__members__:
        return "a reason that this version does not know", "use the version that the node runs"
    return Drop[name].meaning, Drop[name].remedy
