"""State on disk: whole or not at all, and nobody else's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vxlan import statefile
from vxlan.attached import Attached, Book, Key
from vxlan.statefile import StateError


def test_what_was_saved_is_loaded_and_belongs_to_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "state.json"
    assert statefile.load(path) is None
    statefile.save(path, {"a": [1]})
    assert statefile.load(path) == {"a": [1]}
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert os.listdir(path.parent) == ["state.json"]


def test_a_failed_write_leaves_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.json"
    statefile.save(path, 1)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StateError, match=r"No space left.*make room"):
        statefile.save(path, 2)
    assert statefile.load(path) == 1
    assert os.listdir(tmp_path) == ["state.json"]


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    for content in ("{", "\xff"):
        path.write_text(content, encoding="latin-1")
        with pytest.raises(StateError, match=r"state.json: cannot be read.*mend or remove"):
            statefile.load(path)


def test_where_state_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYVXLAN_STATE_DIR")
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/a:/var/lib/b")
    assert statefile.state_dir() == Path("/var/lib/a")
    monkeypatch.delenv("STATE_DIRECTORY")
    assert statefile.state_dir() == Path("/var/lib/pyvxlan")


# -- the book of attachments --------------------------------------------------------------

ONE = Attached(
    Key("net", "c1", "eth0"), 42, "02:00:00:00:00:01", 1450, ("10.42.1.1/16",), ("web",), "/ns"
)
TWO = Attached(Key("net", "c2", "eth0"), 7, "02:00:00:00:00:02", 1450)


def test_the_book_is_on_disk_as_in_memory(tmp_path: Path) -> None:
    book = Book.open(tmp_path / "attached.json")
    book.put(ONE, {"10.42.0.0/16": "10.42.1.1"})
    book.put(TWO)
    again = Book.open(book.path)
    assert (again.attached, again.last) == (book.attached, book.last)
    assert again.select({"container": "c1"}) == [ONE]
    assert again.select({}, 7) == [TWO]
    assert again.taken(42) == {"10.42.1.1": ONE}
    again.strike(ONE.key)
    assert Book.open(book.path).attached == {TWO.key: TWO}


def test_a_book_that_cannot_be_written_keeps_what_it_had(tmp_path: Path) -> None:
    book = Book.open(tmp_path / "attached.json")
    book.put(ONE)
    book.path.with_suffix(".new").mkdir()
    with pytest.raises(StateError):
        book.put(TWO)
    with pytest.raises(StateError):
        book.strike(ONE.key)
    assert book.attached == {ONE.key: ONE}


@pytest.mark.parametrize("content", [{"version": 9}, {"version": 1}, {"version": 1, "attached": 3}])
def test_a_book_of_another_kind_is_refused(tmp_path: Path, content: dict[str, object]) -> None:
    path = tmp_path / "attached.json"
    statefile.save(path, {"boot": statefile.boot_id(), **content})
    with pytest.raises(StateError, match="not understood"):
        Book.open(path)


def test_names_of_links_fit_and_differ() -> None:
    keys = [Key("net", "c1", "eth0"), Key("net", "c1", "eth1"), Key("netc", "1", "eth0")]
    names = {name for key in keys for name in (key.port, key.inner)}
    assert len(names) == 6
    assert {len(name) for name in names} == {14}
    assert all(key.mac[0] == 2 for key in keys)
