"""Pictures that are generated into an object store."""

from __future__ import annotations

import pytest

from cascade.data.stored_folder import StoredFolder
from cascade.errors import OutputError
from cascade.generation import files
from cascade.generation.request import Generation
from cascade.generation.storing import _errors_naming, _Sending, generate_to_store
from cascade.imaging.numbered_files import INDEX
from cascade.imaging.picture_series import RECORD, PictureSeries
from cascade.sampling.overrides import Overrides

ADDRESS = "memory://drawn"
CLAIM = ".cascade-generate-00000.json"
SERIES = PictureSeries(number=0, seeds=[3, 4], request={}, grid="grid.png")

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
    sending.begin(SERIES)
    for name in (RECORD, INDEX, "grid.png", "00000-a-cat.png"):
        (sending.folder / name).write_text("changed")
    sending.send()
    assert sent == ["00000-a-cat.png", "grid.png", INDEX, CLAIM]


def test_pictures_that_were_sent_take_no_room_here_and_are_sent_once(sending, store):
    sending.begin(SERIES)
    names = ("00000.png", INDEX)
    for name in names:
        (sending.folder / name).write_bytes(b"content")
    sending.send()
    store.pipe_file("/drawn/00000.png", b"sent before")
    sending.send()
    assert [(sending.folder / name).stat().st_size for name in names] == [0, 7]
    assert store.cat("/drawn/00000.png") == b"sent before"


@pytest.fixture
def generate(prompted, monkeypatch):
    """A function that generates pictures of prompts into the store, as a machine of its own."""
    prompted.set_progress_bar_config(disable=True)
    monkeypatch.setattr(files, "PICTURES_AT_A_TIME", 1)

    def run(*prompts: str, **values):
        steps = Overrides({"all": {"steps": 1}})
        generation = Generation(prompts=prompts, seed=0, overrides=steps, **values)
        return generate_to_store(prompted, ADDRESS, generation, name="tiny")

    return run


def names(store) -> list[str]:
    return [path.rpartition("/")[2] for path in store.find("/drawn")]


def between(monkeypatch, where: str, work) -> None:
    """Let another machine work once, just before this one does something."""
    plain, done = getattr(files, where), []

    def both(*given):
        if not done:
            done.append(True)
            work()
        return plain(*given)

    monkeypatch.setattr(files, where, both)


def test_machines_that_begin_at_once_take_other_numbers(generate, store, monkeypatch):
    between(monkeypatch, "free_number", lambda: generate("red", "blue"))  # after both listed
    assert [file.name for file in generate("green").pictures] == ["00002-green.png"]
    assert names(store) == [
        ".cascade-generate-00000.json", ".cascade-generate-00002.json", "00000-red.png",
        "00001-blue.png", "00002-green.png", "grid-00002.png", "grid.png", "index-00002.jsonl",
        "index.jsonl",
    ]  # fmt: skip
    lines = [store.cat(f"/drawn/{name}").decode() for name in ("index.jsonl", "index-00002.jsonl")]
    assert [line.count('"prompt"') for line in lines] == [2, 1]


def test_a_machine_that_begins_during_a_series_leaves_it_its_numbers(generate, store, monkeypatch):
    made = []
    between(monkeypatch, "write_pictures", lambda: made.append(generate("green")))
    first = generate("red", "blue", "white")
    assert [file.name for file in first.pictures][2] == "00002-white.png"
    assert [file.name for each in made for file in each.pictures] == ["00003-green.png"]
    assert made[0].index.name == "index-00003.jsonl"
    assert {"00002-white.png", "00003-green.png"} < {*names(store)}


def test_each_of_several_interrupted_series_is_resumed(generate, store, monkeypatch):
    plain = files._generate

    def interrupted(pipeline, generation, seeds, places, callback):
        if places.start == 1:
            raise OutputError("stopped")
        return plain(pipeline, generation, seeds, places, callback)

    with monkeypatch.context() as patch:
        patch.setattr(files, "_generate", interrupted)
        for prompts in (("red", "blue"), ("green", "white")):
            with pytest.raises(OutputError, match="stopped"):
                generate(*prompts)
    resumed = generate("red", "blue", resume=True)
    assert (resumed.earlier, resumed.index.name) == (1, "index.jsonl")
    assert {"00001-blue.png", "00002-green.png"} < {*names(store)}
    assert "00003-white.png" not in names(store)
    assert store.cat("/drawn/index.jsonl").count(b'"prompt"') == 2
    assert generate("green", "white", resume=True).pictures[1].name == "00003-white.png"
    with pytest.raises(OutputError, match=r"last series in memory://drawn has other .* of prompts"):
        generate("black", resume=True)


def test_errors_name_the_store(tmp_path):
    folder = str(tmp_path)
    with (
        pytest.raises(OutputError, match=r"^the last series in memory://drawn has other values$"),
        _errors_naming(StoredFolder(ADDRESS), folder),
    ):
        raise OutputError(f"the last series in {folder} has other values")


def test_pictures_of_other_machines_are_not_replaced(sending, store):
    sending.begin(SERIES)
    picture = sending.folder / "00000.png"
    picture.write_bytes(b"first")
    sending.send()
    picture.write_bytes(b"changed by this run")
    sending.send()
    store.pipe_file("/drawn/00001.png", b"of another machine")
    (sending.folder / "00001.png").write_bytes(b"1")
    (sending.folder / RECORD).write_text("changed")
    with pytest.raises(OutputError, match=r"^memory://drawn/00001.png: another process has writ"):
        sending.send()
    assert store.cat("/drawn/00000.png") == b"changed by this run"
    assert store.cat("/drawn/00001.png") == b"of another machine"
    assert store.cat(f"/drawn/{CLAIM}") != b"changed"
