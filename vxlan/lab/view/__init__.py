"""A page for the class: a lab drawn, and its packets followed hop by hop.

    scene      what there is, and where packets are seen
    identity   the same packet at two interfaces
    journey    sightings become journeys
    story      a journey in words and layers
    lookout    look at one stop
    watch      look at the lab, tell the feed
    feed       messages to every open page
    actions    what a click does
    server     HTTP on 127.0.0.1
    page/      HTML, CSS and JavaScript, as the browser gets them
    class.toml a lab to begin with

`show` puts them together; `pyvxlan lab view` is its command.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vxlan.lab.running import RunningLab
from vxlan.lab.view.actions import Actions
from vxlan.lab.view.feed import Feed
from vxlan.lab.view.scene import scene_of
from vxlan.lab.view.server import PageServer
from vxlan.lab.view.watch import Watcher

__all__ = ["EXAMPLE", "PageServer", "show"]

EXAMPLE = Path(__file__).with_name("class.toml")
"""The topology of a lab to begin with."""


@contextmanager
def show(lab: RunningLab, port: int) -> Iterator[PageServer]:
    """Serve the page of a running lab while the block runs.

    `port` 0 takes any that is free.  Raises LabError if the port is taken.
    """
    feed = Feed()
    watcher = Watcher(scene_of(lab), feed)
    actions = Actions(lambda: watcher.scene, feed)
    server = PageServer(feed, actions.do, port)
    watcher.start()
    server.start()
    try:
        yield server
    finally:
        server.stop()
        watcher.stop()
        actions.undo()
