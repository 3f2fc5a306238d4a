"""Pictures that are generated into an object store."""

from __future__ import annotations

import fsspec
import pytest

from cascade.data.stored_folder import StoredFolder
from cascade.generation.storing import _Sending
from cascade.imaging.numbered_files import INDEX
from cascade.imaging.picture_series import RECORD

ADDRESS = "memory://drawn"


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    """The store in memory, empty; and a cache of this test alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store = fsspec.filesystem("memory")
    store.store.clear()
    yield store
    store.store.clear()


@pytest.fixture
def sending(tmp_path):
    """A folder of pictures for the store, without any."""
    folder = tmp_path / "making"
    folder.mkdir()
    return _Sending(StoredFolder(ADDRESS), folder)


def test_what_says_that_pictures_are_there_is_sent_last(sending, monkeypatch):
    sent = []
    monkeypatch.setattr(StoredFolder, "send", lambda self, file, name: sent.append(name))
    for name in (RECORD, INDEX, "grid.png", "00000-a-cat.png"):
        (sending.folder / name).write_text("1")
    sending.send()
    assert sent == ["00000-a-cat.png", "grid.png", INDEX, RECORD]
