"""Where a node's log goes: standard error, in the form that its reader wants."""

from __future__ import annotations

import logging
import os
import sys

from vxlan.cli.options import verbosity

_SYSLOG = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3}


class JournalFormatter(logging.Formatter):
    """One line with the priority before it, as sd-daemon(3) says; the journal adds the time."""

    def format(self, record: logging.LogRecord) -> str:
        priority = _SYSLOG.get(record.levelno, 2)
        return f"<{priority}>{' | '.join(super().format(record).splitlines())}"


class TerminalFormatter(logging.Formatter):
    """Time, the level unless it is plain information, text; an error as any command's."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if record.levelno >= logging.ERROR:
            return f"pyvxlan: {text}"
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        return f"{self.formatTime(record, '%H:%M:%S')} {level}{text}"


def to_stderr() -> None:
    """Set up logging: warnings only under -q, debugging under -v."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JournalFormatter() if _in_journal() else TerminalFormatter())
    level = {-1: logging.WARNING, 0: logging.INFO}.get(max(-1, verbosity()), logging.DEBUG)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("pyroute2").setLevel(logging.WARNING)
    logging.getLogger("asyncio").setLevel(logging.WARNING)


def _in_journal() -> bool:
    """Whether standard error is the very stream that systemd connected to its journal."""
    stream = os.environ.get("JOURNAL_STREAM", "")
    try:
        status = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return stream == f"{status.st_dev}:{status.st_ino}"
