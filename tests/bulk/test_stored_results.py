"""Results of a command in an object store: fsspec's store in memory, and a web server."""

from __future__ import annotations

import http.server
import json
import re
import tarfile
import threading
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from cascade.bulk.destination import destination_of
from cascade.bulk.joining import join_parts
from cascade.bulk.making import DiskError
from cascade.bulk.parts import Part
from cascade.data.object_stores import list_objects, read_object, write_object
from cascade.errors import ContractError, DataError, OutputError

LARGE = "memory://large"
LEDGER = ".cascade-upscale.jsonl"

pytestmark = pytest.mark.usefixtures("store")


@pytest.fixture
def new_machine(tmp_path, monkeypatch):
    """A function after which nothing is known but what is in the store."""

    def change(name: str = "other") -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))

    return change


def counts(bulk) -> tuple[int, int, int, int]:
    bulk.run()
    outcome = bulk.outcome()
    return outcome.new, outcome.done_before, len(outcome.failed), outcome.unfinished


def names(address: str = LARGE) -> list[str]:
    return [place for _, place in list_objects(address)]


def test_results_are_those_of_a_folder_and_nothing_stays_here(copying, photos, tmp_path):
    assert counts(copying(photos)) == counts(copying(photos, out=LARGE)) == (5, 0, 0, 0)
    results = [path for path in Path("out").rglob("*") if path.suffix in (".png", ".jpg", ".webp")]
    places = [path.relative_to("out").as_posix() for path in results]
    assert names() == sorted([LEDGER, *places])
    for path, place in zip(results, places, strict=True):
        assert read_object(f"{LARGE}/{place}") == path.read_bytes()
    left = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert {path.suffix for path in left} <= {".jsonl", ".lock", ".merge"}


def test_what_is_there_is_not_made_again_by_any_machine(copying, photos, store, new_machine):
    bulk = copying(photos, out=LARGE)
    assert counts(bulk) == (5, 0, 0, 0)
    reads = []
    plain = type(store).get_file

    def counted(self, path, *arguments, **options):
        reads.append(path)
        return plain(self, path, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(store), "get_file", counted)
        assert counts(copying(photos, out=LARGE)) == (0, 5, 0, 0)
        new_machine()
        assert counts(copying(photos, out=LARGE)) == (0, 5, 0, 0)
    assert {Path(path).name for path in reads} == {LEDGER}  # no picture was fetched
    store.rm_file("/large/a.jpg")
    assert counts(copying(photos, out=LARGE)) == (1, 4, 0, 0)


def test_without_the_ledger_the_record_in_a_result_decides(copying, photos, store, new_machine):
    counts(copying(photos, out=LARGE))
    store.rm_file(f"/large/{LEDGER}")
    store.pipe_file("/large/b.png", read_object(f"{LARGE}/sub/c.png"))
    new_machine()
    bulk = copying(photos, out=LARGE)
    assert counts(bulk) == (0, 4, 1, 0)
    ((name, reason),) = bulk.outcome().failed
    assert name == "photos/b.png"
    assert reason.startswith("memory://large/b.png already exists and was made from another input")
    assert counts(copying(photos, out=LARGE, overwrite=True)) == (1, 4, 0, 0)


def test_results_without_a_record_are_known_by_the_ledger(copying, photos, new_machine):
    assert counts(copying(photos, out=LARGE, metadata=False)) == (5, 0, 0, 0)
    new_machine()
    assert counts(copying(photos, out=LARGE, metadata=False)) == (0, 5, 0, 0)


def test_a_killed_run_goes_on_where_it_stopped(copying, photos, new_machine):
    made = []

    def make(pictures, seeds, progress):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.extend(pictures)
        return list(pictures)

    with pytest.raises(KeyboardInterrupt):
        copying(photos, out=LARGE, make=make).run()
    new_machine()
    assert counts(copying(photos, out=LARGE)) == (3, 2, 0, 0)


def test_results_of_another_machine_do_not_count_as_made_here(copying, photos, new_machine):
    calls = []

    def make(pictures, seeds, progress):
        calls.append(pictures)
        if len(calls) == 1:  # while another machine makes all of them, a process joins here
            new_machine("other")
            assert counts(copying(photos, out=LARGE)) == (5, 0, 0, 0)
            new_machine("here")
            for _ in range(2):
                copying(photos, out=LARGE)
        return list(pictures)

    new_machine("here")
    bulk = copying(photos, out=LARGE, make=make)
    assert counts(bulk) == (1, 4, 0, 0)
    lines = [line for line in bulk.ledger.file.read_text().splitlines() if "verified" in line]
    assert len(lines) == len(set(lines)) == 5


def test_a_changed_input_is_noticed(copying, photos, draw):
    counts(copying(photos, out=LARGE))
    draw(photos / "a.jpg", seed=9)
    bulk = copying(photos, out=LARGE)
    assert counts(bulk) == (0, 4, 1, 0)


def test_one_picture_becomes_one_object(copying, photos):
    assert counts(copying(photos / "b.png", out="memory://large/one.png")) == (1, 0, 0, 0)
    assert names() == ["one.png"]


def test_for_a_single_result_the_folder_is_not_listed(copying, photos, store, monkeypatch):
    def refuse(self, path, *arguments, **options):
        raise PermissionError(f"{path} is listed")

    monkeypatch.setattr(type(store), "find", refuse)
    out = "memory://large/one.png"
    assert counts(copying(photos / "b.png", out=out)) == (1, 0, 0, 0)
    assert counts(copying(photos / "b.png", out=out)) == (0, 1, 0, 0)
    assert counts(copying(photos / "a.jpg", out=out)) == (0, 0, 1, 0)
    assert list(store.store) == ["/large/one.png"]


def test_shards_become_shards(copying, photos, tmp_path, new_machine):
    with tarfile.open("set.tar", "w") as tar:
        tar.add(photos / "a.jpg", "a.jpg")
        tar.add(photos / "sub" / "c.png", "c.png")
    assert counts(copying("set.tar", out=LARGE)) == (2, 0, 0, 0)
    assert names() == [LEDGER, "set.tar"]
    Path("copy.tar").write_bytes(read_object(f"{LARGE}/set.tar"))
    with tarfile.open("copy.tar") as tar:
        assert tar.getnames() == ["a.jpg", "c.png"]
    new_machine()
    assert counts(copying("set.tar", out=LARGE)) == (0, 2, 0, 0)


def test_parts_of_several_machines_are_joined(copying, photos, store, new_machine):
    for number in (1, 2, 3):
        new_machine(f"machine-{number}")
        assert counts(copying(photos, out=LARGE, part=Part(3, number)))[2:] == (0, 0)
    with pytest.raises(OutputError, match=r"memory://large holds results of parts of 3"):
        copying(photos, out=LARGE, part=Part(2, 1))
    joined = join_parts([LARGE], "upscale")
    assert (joined.done, joined.exit_code) == (5, 0)
    assert joined.last_line() == f"3 of 3 parts, 5 done; joined in {LARGE}/{LEDGER}"
    joined.merge()
    new_machine()
    assert counts(copying(photos, out=LARGE)) == (0, 5, 0, 0)
    store.rm_file("/large/a.jpg")
    assert [name for name, _ in join_parts([LARGE], "upscale").missing] == ["photos/a.jpg"]
    with pytest.raises(DataError, match=r"^memory://none holds no part of upscale; expected"):
        join_parts(["memory://none"], "upscale")


def test_inputs_are_never_replaced_and_results_are_no_inputs(copying, photos):
    for path in photos.glob("*.*"):
        write_object(f"memory://scans/{path.name}", path.read_bytes())
    with pytest.raises(OutputError, match=r"^memory:///?scans is an input"):
        copying("memory://scans", out="memory://scans/")
    with pytest.raises(OutputError, match=r"scans/a\.jpg is an input itself"):
        copying("memory://scans/a.jpg", out="memory://scans/a.jpg")
    assert counts(copying("memory://scans", out="memory://scans/large")) == (2, 0, 0, 0)
    assert counts(copying("memory://scans", out="memory://scans/large")) == (0, 2, 0, 0)


def test_checking_a_result_leaves_the_one_that_another_process_makes(copying, photos, tmp_path):
    counts(copying(photos, out=LARGE))
    destination, folder = destination_of(LARGE, as_file=False)
    (folder / "a.jpg").write_bytes(b"half of it")
    with destination.reading(folder / "a.jpg") as file:
        assert file.read_bytes() == read_object(f"{LARGE}/a.jpg")
    assert not file.exists()
    assert (folder / "a.jpg").read_bytes() == b"half of it"


def test_a_result_that_is_gone_is_not_taken_for_the_earlier_one(store):
    write_object(f"{LARGE}/a.png", b"earlier")
    destination, folder = destination_of(LARGE, as_file=False)
    (folder / "doubt.png").write_bytes(b"1")
    with pytest.raises(OutputError, match=r"^memory://large/a\.png: its file .* is gone"):
        destination.deliver([folder / "doubt.png", folder / "a.png"])
    assert not store.exists("/large/doubt.png")
    (folder / "a.png").write_bytes(b"new")
    destination.deliver([folder / "numbers.tif", folder / "doubt.png", folder / "a.png"])
    assert names() == ["a.png", "doubt.png"]


def test_an_input_shard_in_a_store_is_never_replaced(copying, photos, store):
    with tarfile.open("a.tar", "w") as tar:
        tar.add(photos / "a.jpg", "a.jpg")
    write_object("memory://sh/a.tar", Path("a.tar").read_bytes())
    for out in ("memory://sh", "memory:///sh/"):
        with pytest.raises(OutputError, match=r"sh/a\.tar is an input itself; choose another"):
            copying("memory://sh/a.tar", out=out, overwrite=True)
    assert read_object("memory://sh/a.tar") == Path("a.tar").read_bytes()
    assert counts(copying("memory://sh/a.tar", out="memory://sh/large")) == (1, 0, 0, 0)


def test_what_a_store_cannot_hold_is_refused(copying, photos):
    for values in ({"compare": True}, {"seeds": 2}):
        with pytest.raises(ContractError, match="a store takes one result per image, without"):
            copying(photos, out=LARGE, **values)


def test_doubt_is_written_beside_a_result(command, upscaler, photos):
    arguments = ["--model", upscaler, "-o", LARGE, "--map", "-n", 2]
    assert command("upscale", photos / "b.png", *arguments).code == 0
    assert names() == [LEDGER, "b-doubt.png", "b.png"]
    assert "1 already done" in command("upscale", photos / "b.png", *arguments).out


def test_a_store_that_cannot_be_written_is_one_line(copying, photos, store, monkeypatch):
    def refuse(self, path, *arguments, **options):
        raise PermissionError("Access Denied\nmore")

    monkeypatch.setattr(type(store), "pipe_file", refuse)
    made = []
    bulk = copying(photos, out=LARGE, make=lambda *arguments: made.append(1))
    with pytest.raises(OutputError, match=rf"^{LARGE}/{LEDGER}: cannot be written \(Access Den"):
        bulk.run()
    assert not made
    single = copying(photos / "b.png", out=f"{LARGE}/one.png", make=lambda *_: made.append(1))
    with pytest.raises(DiskError, match=rf"^{LARGE}/one.png: cannot be written \(Access Denied\)"):
        single.run()
    assert not made


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("nowhere://u:secret@x/large", r"nowhere://x/large: Protocol not known: nowhere\."),
        ("s3://", r"s3:// names no bucket; name one, such as s3://bucket/large\."),
        ("s3:///x", r"s3:// names no bucket"),
        ("memory://", r"memory:// names no bucket"),
        ("gs://large", r"gs://large: addresses of gs:// need a package .* pip install gcsfs\."),
        ("memory://large/file", "memory://large/file is a file; name a folder"),
        ("file:///large", "file:///large is on this machine; name the folder without file://"),
        ("https://example.org/x?token=secret", r"https://example\.org/x: an address with a query"),
    ],
)
def test_a_wrong_address_is_one_line(command, upscaler, photos, address, message):
    write_object("memory://large/file", b"1")
    outcome = command("upscale", photos, "--model", upscaler, "-o", address)
    assert outcome.code == 1
    assert "secret" not in outcome.err
    assert "\n" not in outcome.err.strip()
    assert re.search(message, outcome.err), outcome.err


@pytest.mark.parametrize("address", ["s3://x.png", "s3:///x.png", "memory://x.png"])
def test_a_single_file_needs_a_bucket(copying, photos, address):
    before = set(Path().iterdir())
    with pytest.raises(OutputError, match=r"^[a-z0-9]+:// names no bucket; name one"):
        copying(photos / "b.png", out=address)
    assert set(Path().iterdir()) == before


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves and takes files of a folder."""

    def do_PUT(self) -> None:
        path = Path(self.translate_path(self.path))
        if "locked" in path.parts:
            self.send_error(403)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(201)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments) -> None:
        pass


@pytest.fixture
def server(tmp_path):
    """The address of a web server that takes files, and its folder."""
    pytest.importorskip("aiohttp")
    folder = tmp_path / "served"
    (folder / "large").mkdir(parents=True)
    handler = partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()
        thread.join()


def test_a_web_server_takes_results(command, upscaler, photos, server, new_machine):
    url, folder = server
    arguments = ["upscale", photos / "b.png", "--model", upscaler, "-o"]
    outcome = command(*arguments, f"{url}/large")
    assert outcome.code == 0, outcome.err
    assert "1 upscaled" in outcome.out
    assert "if several machines write there, give each its own part" in outcome.err
    assert Image.open(folder / "large" / "b.png").size == (80, 56)
    lines = (folder / "large" / LEDGER).read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["started", "made"]
    new_machine()
    assert "0 upscaled, 1 already done" in command(*arguments, f"{url}/large").out
    refused = command(*arguments, f"{url}/locked")
    assert refused.code == 1
    assert "/locked/.cascade-upscale.jsonl: cannot be written (403" in refused.err
