"""Pictures of an object store as inputs of a command."""

from __future__ import annotations

from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

from cascade.bulk import searching
from cascade.bulk.jobs import is_file_name
from cascade.data.object_stores import StoredObject


@pytest.fixture
def store(tmp_path):
    store = fsspec.filesystem("memory")
    store.store.clear()
    noise = np.random.default_rng(0)
    (tmp_path / "in" / "sub").mkdir(parents=True)
    for name in ("a.png", "sub/b.gif"):
        pixels = noise.integers(0, 255, (9, 8, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "in" / name)
        store.pipe(f"/scans/{name}", (tmp_path / "in" / name).read_bytes())
    store.pipe("/scans/notes.txt", b"text")
    store.pipe("/scans/.hidden/c.png", b"")
    yield store
    store.store.clear()


def test_a_store_gives_the_results_of_a_folder(command, upscaler, store, tmp_path):
    arguments = ["--model", upscaler, "-o"]
    remote = command("upscale", "memory://scans", *arguments, tmp_path / "remote")
    command("upscale", tmp_path / "in", *arguments, tmp_path / "local")
    assert remote.code == 0, remote.err
    assert "2 upscaled, 2 left out" in remote.out
    for name in ("a.png", "sub/b.png"):
        local = (tmp_path / "local" / name).read_bytes()
        assert (tmp_path / "remote" / name).read_bytes() == local
    again = command("upscale", "memory://scans", *arguments, tmp_path / "remote")
    assert "0 upscaled, 2 already done" in again.out


def test_a_changed_object_is_noticed(command, upscaler, store, tmp_path):
    arguments = ["upscale", "memory://scans/**/*.png", "--model", upscaler, "-o", tmp_path / "out"]
    assert "1 upscaled" in command(*arguments).out
    store.pipe("/scans/a.png", store.cat("/scans/a.png") + b"more")
    outcome = command(*arguments)
    assert outcome.code == 1
    assert "was made from another input of that name" in outcome.err


def test_results_may_lie_where_the_store_names_its_objects(command, upscaler, store, tmp_path):
    out = tmp_path / "out"
    store.pipe(f"{out}/a.png", store.cat("/scans/a.png"))
    arguments = ["upscale", f"memory://{out}", "--model", upscaler, "-o", out]
    assert "1 upscaled" in command(*arguments).out
    again = command(*arguments)
    assert "1 already done" in again.out, again.err


def test_a_signed_address_gives_a_plain_name(monkeypatch):
    address = "http://host/scan.png?token=SECRET/x"
    listing = [(StoredObject(address), "scan.png")]
    monkeypatch.setattr(searching, "list_objects", lambda each: listing)
    (picture,) = searching.find_pictures([address]).pictures
    assert (str(picture.place), picture.file.name) == ("scan.png", "scan.png")
    assert "SECRET" not in picture.name
    assert is_file_name(Path("large.png"), [address])


def test_a_folder_whose_name_holds_tar_is_no_shard(command, upscaler, store, tmp_path):
    store.pipe("/a.tartu/x.png", store.cat("/scans/a.png"))
    arguments = ["--model", upscaler, "-o", tmp_path / "out"]
    outcome = command("upscale", "memory://a.tartu/x.png", *arguments[:2], "-o", tmp_path / "x.png")
    assert outcome.code == 0, outcome.err
    outcome = command("upscale", "memory://a.tartu", *arguments)
    assert "1 upscaled" in outcome.out, outcome.err


def test_one_object_becomes_one_file(command, upscaler, store, tmp_path):
    out = tmp_path / "large.png"
    outcome = command("upscale", "memory://scans/a.png", "--model", upscaler, "-o", out)
    assert outcome.code == 0, outcome.err
    assert Image.open(out).size == (32, 36)


def test_a_broken_or_missing_object_is_named(command, upscaler, store, tmp_path):
    store.pipe("/scans/broken.png", b"no picture")
    arguments = ["--model", upscaler, "-o", tmp_path / "out"]
    outcome = command("upscale", "memory://scans", *arguments)
    assert outcome.code == 1
    assert "2 upscaled, 1 failed" in outcome.out
    assert "/scans/broken.png: not a readable image" in outcome.err
    missing = command("upscale", "memory://nothing", *arguments)
    assert missing.code == 1
    assert "memory://nothing: no files there" in missing.err
