"""`pyvxlan lab` with all its commands."""

from __future__ import annotations

from vxlan.cli import (
    lab_capture,
    lab_explain,
    lab_fault,
    lab_lessons,
    lab_places,
    lab_send,
    lab_view,
)
from vxlan.cli.lab import lab as lab

for _command in (
    lab_places.ping,
    lab_places.pingall,
    lab_send.send,
    lab_places.enter,
    lab_places.execute,
    lab_capture.capture,
    lab_explain.explain,
    lab_fault.fault,
    lab_lessons.lessons,
    lab_lessons.text,
    lab_lessons.check,
    lab_view.view,
):
    lab.add_command(_command)
