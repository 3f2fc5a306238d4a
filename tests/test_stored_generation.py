"""Pictures that are generated into an object store."""

from __future__ import annotations

import pytest

from cascade.data.stored_folder import StoredFolder
from cascade.errors import OutputError
from cascade.generation.storing import _alone_in, _errors_naming, _Sending
from cascade.imaging.numbered_files import INDEX
from cascade.imaging.picture_series import RECORD

ADDRESS = "memory://drawn"

pytestmark = pytest.mark.usefixtures("store")


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


def test_pictures_that_were_sent_take_no_room_here_and_are_sent_once(sending, store):
    names = ("00000.png", INDEX)
    for name in names:
        (sending.folder / name).write_bytes(b"content")
    sending.send()
    store.pipe_file("/drawn/00000.png", b"sent before")
    sending.send()
    assert [(sending.folder / name).stat().st_size for name in names] == [0, 7]
    assert store.cat("/drawn/00000.png") == b"sent before"


def test_one_process_of_a_machine_at_a_time():
    with _alone_in(StoredFolder(ADDRESS)):
        with (
            pytest.raises(
                OutputError, match=r"^another process generates .* into memory:///?drawn;"
            ),
            _alone_in(StoredFolder("memory:///drawn/")),
        ):
            pytest.fail("two are at work")
        with _alone_in(StoredFolder("memory://other")):
            pass
    with _alone_in(StoredFolder(ADDRESS)):
        pass


def test_errors_name_the_store(tmp_path):
    folder = str(tmp_path)
    with (
        pytest.raises(OutputError, match=r"^the last series in memory://drawn has other values$"),
        _errors_naming(StoredFolder(ADDRESS), folder),
    ):
        raise OutputError(f"the last series in {folder} has other values")


def test_pictures_of_other_machines_are_not_replaced(sending, store):
    picture = sending.folder / "00000.png"
    picture.write_bytes(b"first")
    sending.send()
    picture.write_bytes(b"changed by this run")
    sending.send()
    store.pipe_file("/drawn/00001.png", b"of another machine")
    (sending.folder / "00001.png").write_bytes(b"1")
    (sending.folder / RECORD).write_text("1")
    with pytest.raises(OutputError, match=r"^another process .* into memory://drawn"):
        sending.send()
    assert store.cat("/drawn/00000.png") == b"changed by this run"
    assert store.cat("/drawn/00001.png") == b"of another machine"
    assert not store.exists(f"/drawn/{RECORD}")
