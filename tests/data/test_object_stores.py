"""Files of object stores: in fsspec's store in memory, and of a web server in this process."""

from __future__ import annotations

import http.server
import io
import threading
from functools import partial
from unittest.mock import Mock

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry, known_implementations
from PIL import Image

from cascade.data import object_stores
from cascade.data.object_stores import (
    StoredObject,
    create_object,
    list_objects,
    object_exists,
    read_object,
    send_file,
    write_object,
)
from cascade.data.sources import open_source
from cascade.errors import DataError, OutputError


@pytest.fixture
def store():
    store = fsspec.filesystem("memory")
    store.store.clear()
    yield store
    store.store.clear()


def places(address: str) -> list[str]:
    return [place for _, place in list_objects(address)]


def test_folders_patterns_and_files_are_listed(store):
    for name in ("a.png", "sub/b.png", "sub/deep/c.txt"):
        write_object(f"memory://x/{name}", b"1")
    assert places("memory://x") == places("memory://x/") == ["a.png", "sub/b.png", "sub/deep/c.txt"]
    assert places("memory://x/sub/b.png") == ["b.png"]
    assert places("memory://x/**/*.png") == ["a.png", "sub/b.png"]
    assert places("memory://x/s*/*.png") == ["sub/b.png"]
    assert places("memory://x/*") == ["a.png", "sub/b.png", "sub/deep/c.txt"]
    assert all(stored.read() == b"1" for stored, _ in list_objects("memory://x"))


def test_what_is_written_is_read(store, tmp_path):
    for address in ("memory://x/y/z.bin", str(tmp_path / "y" / "z.bin")):
        assert not object_exists(address)
        write_object(address, b"\0zero\0")
        assert object_exists(address)
        assert read_object(address) == b"\0zero\0"


def test_a_changed_object_has_another_stamp_and_is_read_again(store):
    stored = StoredObject("memory://x/a.bin")
    write_object(stored.address, b"one")
    stamp = stored.stamp()
    assert stored.stamp() == stamp
    assert (stamp[0], stored.read()) == (3, b"one")
    write_object(stored.address, b"two")
    assert stored.stamp() != stamp
    assert stored.read() == b"two"


def test_shards_are_read_from_a_store(store, write_shard, tmp_path):
    for number in range(2):
        picture = io.BytesIO()
        Image.new("RGB", (3, 3)).save(picture, "PNG")
        shard = tmp_path / f"{number}.tar"
        write_shard(shard, {f"{number}.png": picture.getvalue(), f"{number}.json": b'{"c": "x"}'})
        write_object(f"memory://shards/{number}.tar", shard.read_bytes())
    for pattern in ("memory://shards/{0..1}.tar", "memory://shards/*.tar"):
        source = open_source(pattern, cache_dir=str(tmp_path / "cache"))
        assert [source.key(index) for index in range(2)] == ["0", "1"]
        assert source.labels(0) == {"c": "x"}
    with pytest.raises(DataError, match=r"memory://shards/9\.tar: no such file"):
        open_source("memory://shards/9.tar", cache_dir=str(tmp_path / "cache"))


def test_a_web_server_is_listed_and_read(tmp_path):
    pytest.importorskip("aiohttp")
    (tmp_path / "sub").mkdir()
    for name in ("a.png", "sub/b.png"):
        (tmp_path / name).write_bytes(name.encode())

    requests = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments) -> None:
            requests.append(self.command)

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Handler, directory=str(tmp_path))
    ) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}"
            listing = list_objects(f"{url}/")
            assert [place for _, place in listing] == ["a.png", "sub/b.png"]
            assert [stored.read() for stored, _ in listing] == [b"a.png", b"sub/b.png"]
            requests.clear()
            assert places(f"{url}/sub/b.png") == ["b.png"]
            assert len(requests) == 1  # whether it exists; it is not searched for links
            assert places(f"{url}/sub/b.png?token=secret/*") == ["b.png"]
            with pytest.raises(DataError, match=r"none\.png: no such file or folder"):
                read_object(f"{url}/none.png")
        finally:
            server.shutdown()
            thread.join()


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(
        known_implementations, "s3", {"class": "no_such_s3fs.S3FileSystem", "err": "Install it"}
    )
    monkeypatch.delitem(_registry, "s3", raising=False)
    with pytest.raises(DataError, match=r"s3:// need a package.*; pip install no_such_s3fs\.$"):
        read_object("s3://user:secret@bucket/a.png")


def test_errors_name_the_address_without_secrets(store):
    with pytest.raises(DataError, match=r"^memory://x/a\.png: no such file or folder\.$"):
        read_object("memory://x/a.png")
    with pytest.raises(DataError, match="memory://x: no files there"):
        list_objects("memory://x")
    with pytest.raises(DataError, match=r"^nowhere://x/a\.png: Protocol not known: nowhere\.$"):
        read_object("nowhere://u:secret@x/a.png")
    for address in ("github://x", "zip://a.png", "ftp://u:secret@127.0.0.1:1/a.png"):
        with pytest.raises(DataError, match=f"^{address.replace('u:secret@', '')}: .*[.]$"):
            read_object(address)


def test_a_store_that_cannot_be_written_is_one_line(monkeypatch, store):
    def refuse(self, path, data, **options):
        raise PermissionError("Access Denied\nmore")

    monkeypatch.setattr(type(store), "pipe_file", refuse)
    with pytest.raises(OutputError, match=r"^memory://x/a: cannot be written \(Access Denied\)\.$"):
        write_object("memory://x/a", b"1")


@pytest.mark.parametrize("bucket_exists", [False, True])
def test_folders_are_made_but_buckets_are_not(monkeypatch, bucket_exists):
    folders = []

    class Store:
        def pipe_file(self, path, data):
            if not folders:
                raise FileNotFoundError("The specified bucket does not exist")

        def exists(self, path):
            assert path == "bucket"
            return bucket_exists

        def makedirs(self, path, exist_ok):
            folders.append(path)

    monkeypatch.setattr(object_stores, "open_store", lambda address: (Store(), "bucket/a/b.png"))
    if bucket_exists:
        write_object("s3://bucket/a/b.png", b"1")
        assert folders == ["bucket/a"]
    else:
        with pytest.raises(OutputError, match="The specified bucket does not exist"):
            write_object("s3://bucket/a/b.png", b"1")


def test_a_large_file_is_sent_in_parts(monkeypatch, store, tmp_path):
    monkeypatch.setattr(object_stores, "SENT_AT_ONCE_BYTES", 3)
    monkeypatch.setattr(type(store), "pipe_file", None)
    (tmp_path / "a.bin").write_bytes(b"large")
    send_file("memory://x/a.bin", tmp_path / "a.bin")
    assert read_object("memory://x/a.bin") == b"large"


def test_of_two_that_create_an_object_one_succeeds(store, monkeypatch):
    assert create_object("memory://bucket/claim", b"first")
    assert not create_object("memory://bucket/claim", b"second")
    with monkeypatch.context() as patch:  # it comes between asking and writing
        patch.setattr(MemoryFileSystem, "exists", Mock(side_effect=[False, True, True]))
        assert not create_object("memory://bucket/claim", b"at the same moment")
    assert store.cat("/bucket/claim") == b"first"


def test_stores_that_cannot_create_exclusively_are_asked_first(store, monkeypatch):
    def pipe_file(self, path, value):
        self.open(path, "wb", data=value)

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", pipe_file)
    assert create_object("memory://bucket/claim", b"first")
    assert not create_object("memory://bucket/claim", b"second")
    assert store.cat("/bucket/claim") == b"first"


class AzureStore(MemoryFileSystem):
    """Replaces files unless it is told not to, with the options of Azure's package."""

    def pipe_file(self, path, value, overwrite=True, max_concurrency=None, **kwargs):
        super().pipe_file(path, value, mode="overwrite" if overwrite else "create")


def test_azure_is_told_not_to_replace(store, monkeypatch):
    azure = AzureStore()
    monkeypatch.setattr(object_stores, "open_store", lambda address: (azure, "/bucket/claim"))
    assert create_object("abfs://bucket/claim", b"first")
    monkeypatch.setattr(azure, "exists", Mock(side_effect=[False, True, True]))
    assert not create_object("abfs://bucket/claim", b"second")
    assert store.cat("/bucket/claim") == b"first"


def test_a_file_that_was_replaced_at_once_is_taken(store, monkeypatch):
    def pipe_file(self, path, value):
        self.open(path, "wb", data=value)
        self.open(path, "wb", data=b"of another process")

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", pipe_file)
    assert not create_object("memory://bucket/claim", b"ours")
