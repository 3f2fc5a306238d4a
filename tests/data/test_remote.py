"""Remote shards, from a web server in this process."""

from __future__ import annotations

import http.server
import io
import multiprocessing
import shutil
import threading
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from cascade.data.remote import default_cache, fetch, without_secrets
from cascade.data.shard_index import index_shard
from cascade.data.shards import ShardSource
from cascade.data.sources import open_source
from cascade.errors import DataError

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="webdataset fetches by curl")


def png(side: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side)).save(file, "PNG")
    return file.getvalue()


class Server(http.server.ThreadingHTTPServer):
    """Serves a folder, keeps the paths that were asked for, and can break off in the middle."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self.folder = folder
        self.asked: list[str] = []
        self.breaks_off = False
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.SimpleHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        super().do_GET()

    def copyfile(self, source, outputfile) -> None:
        data = source.read()
        outputfile.write(data[: len(data) // 2] if self.server.breaks_off else data)

    def log_message(self, *arguments) -> None:
        pass


@pytest.fixture
def server(tmp_path, write_shard):
    (tmp_path / "web").mkdir()
    for number in range(3):
        members = {f"{number}.png": png(number + 1), f"{number}.json": b'{"class": "a"}'}
        write_shard(tmp_path / "web" / f"a-{number}.tar", members)
    with Server(tmp_path / "web") as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def fetch_one(url: str, cache: Path) -> None:
    fetch(url, cache, check=index_shard)


@needs_curl
def test_remote_shards_give_what_local_ones_give_and_are_fetched_once(server, tmp_path):
    local = ShardSource(str(server.folder / "a-{0..2}.tar"))
    for _ in range(2):
        url = f"{server.url}/a-{{0..2}}.tar"
        remote = open_source(url, cache_dir=str(tmp_path / "cache"))
        assert len(remote) == 3
        for index in range(3):
            assert remote.read(index) == local.read(index)
            assert remote.labels(index) == local.labels(index) == {"class": "a"}
    assert remote.name(0) == f"{server.url}/a-0.tar:0.png"
    assert sorted(server.asked) == [f"/a-{number}.tar" for number in range(3)]
    assert len(list((tmp_path / "cache").iterdir())) == 3


@needs_curl
@pytest.mark.parametrize("fault", ["missing", "breaks off", "damaged"])
def test_a_failed_transfer_is_one_line_and_leaves_nothing(server, tmp_path, fault):
    shard = server.folder / "a-0.tar"
    if fault == "missing":
        shard.unlink()
    elif fault == "damaged":
        shard.write_bytes(shard.read_bytes()[:1000])
    server.breaks_off = fault == "breaks off"
    url = f"{server.url}/a-0.tar"
    with pytest.raises(DataError) as error:
        ShardSource(f"{url}?token=secret", cache_dir=tmp_path / "cache")
    assert url in str(error.value)
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)
    assert list((tmp_path / "cache").iterdir()) == []


@needs_curl
def test_processes_that_want_the_same_shard_do_not_disturb_each_other(server, tmp_path):
    url, cache = f"{server.url}/a-1.tar", tmp_path / "cache"
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=fetch_one, args=(url, cache)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    (copy,) = cache.iterdir()
    assert copy.read_bytes() == (server.folder / "a-1.tar").read_bytes()


def test_a_command_runs_only_if_the_user_allows_it(server, tmp_path, monkeypatch):
    command = f"pipe:touch {tmp_path / 'ran'} && cat {server.folder / 'a-0.tar'}"
    monkeypatch.delenv("CASCADE_PIPE_URLS", raising=False)
    with pytest.raises(DataError, match="would run a command; set CASCADE_PIPE_URLS=1"):
        open_source(command, cache_dir=str(tmp_path / "cache"))
    assert not (tmp_path / "ran").exists()
    monkeypatch.setenv("CASCADE_PIPE_URLS", "1")
    assert open_source(command, cache_dir=str(tmp_path / "cache")).read(0) == png(1)
    assert (tmp_path / "ran").exists()
    with pytest.raises(DataError, match=r"cannot be fetched .*exit 3"):
        open_source("pipe:exit 3", cache_dir=str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://x/'; touch ran; '.tar", "not a URL"),
        ("nowhere://bucket/a.tar", "Protocol not known: nowhere"),
        ("gs://bucket/a.tar", "gsutil is needed"),
    ],
)
def test_urls_that_cannot_be_opened(tmp_path, monkeypatch, url, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match=words):
        open_source(url, cache_dir=str(tmp_path / "cache"))
    assert not (tmp_path / "ran").exists()


@needs_curl
def test_a_cache_that_cannot_be_written_is_named(server, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match=f"cannot write to {tmp_path / 'file'}"):
        open_source(f"{server.url}/a-0.tar", cache_dir=str(tmp_path / "file"))


def test_the_cache_is_the_user_s_and_names_hide_what_is_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "cascade" / "shards"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache() == tmp_path / ".cache" / "cascade" / "shards"
    assert without_secrets("https://me:secret@host/a.tar?key=secret") == "https://host/a.tar"
    several = (
        "part-?.tar::https://me:s@cret@host/{0..9}.tar?key=secret::s3://host/b@c.tar?key=secret"
    )
    assert without_secrets(several) == "part-?.tar::https://host/{0..9}.tar::s3://host/b@c.tar"
    line = "cascade evaluate p --data 'https://host/a.tar?key=secret&b' --seed 1"
    assert without_secrets(line) == "cascade evaluate p --data 'https://host/a.tar' --seed 1"
