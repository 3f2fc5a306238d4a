"""Content credentials (C2PA): pictures are signed, and changes after that show."""

from __future__ import annotations

import errno
import json
import os
import re
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from cascade.errors import ContractError, DataError, OutputError
from cascade.imaging.credentials import Signer, read_manifest
from cascade.imaging.marks import EMPTY, with_mark
from cascade.imaging.metadata import Metadata
from cascade.imaging.opening import format_of
from cascade.imaging.picture import Picture
from cascade.imaging.picture_reading import read_picture
from cascade.imaging.picture_writing import write_picture
from cascade.imaging.rasters.recorded import read_mark
from cascade.imaging.writing import save_png
from cascade.inspection import inspect_picture
from cascade.pipeline import CascadePipeline

pytest.importorskip("c2pa")
from certificates import write_certificate
from cryptography.x509.oid import ExtendedKeyUsageOID

SETTINGS = {"model": "photo-x4", "version": "1.2", "seed": 3}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The files of a certificate and its key."""
    return write_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def signer(files) -> Signer:
    return Signer(*files)


def picture(xmp: bytes | None = None) -> Picture:
    colours = torch.arange(3 * 8 * 9, dtype=torch.uint8).reshape(3, 8, 9)
    return Picture(colour=colours, bits=8, metadata=Metadata(xmp=xmp))


def manifest_of(path):
    data = path.read_bytes()
    return read_manifest(data, format_of(data, path.name))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jfif", ".webp", ".tif"])
def test_every_format_is_signed_and_keeps_its_pixels_and_record(signer, tmp_path, suffix):
    plain, signed = tmp_path / f"plain{suffix}", tmp_path / f"signed{suffix}"
    write_picture(picture(), plain, settings=SETTINGS)
    write_picture(picture(), signed, settings=SETTINGS, signer=signer)
    assert manifest_of(plain) is None
    manifest = manifest_of(signed)
    assert manifest.is_valid
    assert not manifest.is_trusted
    assert manifest.faults == ()
    assert manifest.signer == "Archive, Signer"
    assert manifest.generator == "Cascade 1.2"
    assert manifest.source_type == "compositeWithTrainedAlgorithmicMedia"
    assert read_mark(signed).record == SETTINGS
    assert read_picture(signed).colour.equal(read_picture(plain).colour)
    assert sorted(path.name for path in tmp_path.iterdir()) == [plain.name, signed.name]


def test_what_a_model_drew_stays_generated(signer, tmp_path):
    save_png(Image.new("RGB", (8, 8)), tmp_path / "a.png", SETTINGS, signer=signer)
    assert manifest_of(tmp_path / "a.png").source_type == "trainedAlgorithmicMedia"
    drawn = picture(with_mark(EMPTY, "generated", SETTINGS))
    write_picture(drawn, tmp_path / "b.png", settings=SETTINGS, signer=signer)
    assert manifest_of(tmp_path / "b.png").source_type == "trainedAlgorithmicMedia"


@pytest.mark.parametrize("place", [-20, 60])
def test_a_changed_byte_shows(signer, tmp_path, place):
    save_png(Image.new("RGB", (8, 8)), tmp_path / "a.png", SETTINGS, signer=signer)
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[place if place < 0 else data.index(b"jumb") + place] ^= 1
    manifest = read_manifest(bytes(data), "PNG")
    assert not manifest.is_valid
    assert manifest.faults
    assert dict(manifest.lines())["verifies"].startswith("NO: ")


def test_a_format_without_credentials_is_named(signer, tmp_path):
    file = tmp_path / "a.bmp"
    Image.new("RGB", (8, 8)).save(file)
    before = file.read_bytes()
    with pytest.raises(OutputError, match=r"a\.bmp: C2PA does not support bmp; write PNG, JPEG"):
        signer.add_manifest(file, file, "generated", SETTINGS)
    assert file.read_bytes() == before


def test_a_full_disk_is_reported_as_one(signer, tmp_path, monkeypatch):
    def fill(self, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", fill)
    with pytest.raises(OutputError, match=r"a\.png: No space left on device") as caught:
        write_picture(picture(), tmp_path / "a.png", settings=SETTINGS, signer=signer)
    assert caught.value.__cause__.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


def test_a_certificate_that_cannot_sign_is_refused_in_one_line(files, tmp_path):
    certificate, key = files
    old = write_certificate(tmp_path / "old", begin_days=-9, end_days=-2)
    web = write_certificate(tmp_path / "web", use=ExtendedKeyUsageOID.SERVER_AUTH)
    _, other = write_certificate(tmp_path / "other")
    for pair, kind, words in (
        ((certificate, other), ContractError, "is not the key of"),
        (old, ContractError, "which is not now; renew it"),
        (web, ContractError, "C2PA does not accept this certificate"),
        ((key, key), ContractError, "not a certificate in PEM"),
        ((certificate, certificate), ContractError, "not a private key in PEM"),
        ((certificate, tmp_path / "none"), DataError, "none: cannot be read"),
    ):
        with pytest.raises(kind, match=words) as caught:
            Signer(*pair)
        assert "\n" not in str(caught.value)


# ---- the commands -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def options(files) -> list[object]:
    return ["--c2pa-certificate", files[0], "--c2pa-key", files[1]]


@pytest.fixture
def model(upsampler, tmp_path):
    folder = tmp_path / "tiny-x2"
    CascadePipeline.from_stages({"upsampler": upsampler}).save_pretrained(folder)
    return folder


def upscale(command, model, folder, *options):
    source = folder / "photo.png"
    Image.new("RGB", (16, 16), (200, 90, 30)).save(source)
    return command(
        *("upscale", source, "-o", folder / "out", "--model", model, "--device", "cpu"),
        *("--steps", 1, *options),
    )


def test_results_are_signed_once_and_inspected(command, model, options, tmp_path):
    assert upscale(command, model, tmp_path, *options).code == 0
    result = tmp_path / "out" / "photo.png"
    shown = command("inspect", result)
    assert "manifest signed by Archive, Signer, compositeWithTrained" in shown.out
    assert "verifies yes, unchanged since it was signed; its signer is on no list" in shown.out
    (values,) = json.loads(command("inspect", result, "--json").out)["images"]
    page = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text(encoding="utf-8")
    (row,) = re.findall(r"^\| `inspect` \| (.+) \|$", page, flags=re.MULTILINE)
    assert set(values) == set(re.findall(r"`(\w+)`", row)) - {"images", "error"}
    before = result.stat().st_mtime_ns
    assert "1 already done" in upscale(command, model, tmp_path, *options).out
    assert result.stat().st_mtime_ns == before
    unsigned = upscale(command, model, tmp_path)
    assert unsigned.code == 1
    assert "was made with signer=" in unsigned.err


def test_sheets_are_marked_and_signed_as_the_results_on_them_are(command, model, options, tmp_path):
    sheets = ("photo-variants.png", "compare/photo-seed0.png.jpg")
    line = ("-n", 2, "--seed", 0, "--compare", *options)
    assert upscale(command, model, tmp_path, *line).code == 0
    for name in sheets:
        inspection = inspect_picture(tmp_path / "out" / name)
        assert inspection.source_type == "compositeWithTrainedAlgorithmicMedia"
        assert inspection.mark["AISystemUsed"] == "Cascade tiny-x2"
        assert inspection.manifest is not None
        assert inspection.manifest.is_valid
        assert inspection.manifest.source_type == "compositeWithTrainedAlgorithmicMedia"
    before = [(tmp_path / "out" / name).read_bytes() for name in sheets]
    assert upscale(command, model, tmp_path, *line).code == 0  # they are known again
    assert [(tmp_path / "out" / name).read_bytes() for name in sheets] == before


def test_sheets_without_metadata_have_no_mark(command, model, tmp_path):
    line = ("-n", 2, "--seed", 0, "--compare", "--no-metadata")
    assert upscale(command, model, tmp_path, *line).code == 0
    for name in ("photo-variants.png", "compare/photo-seed0.png.jpg"):
        inspection = inspect_picture(tmp_path / "out" / name)
        assert (inspection.mark, inspection.manifest) == ({}, None)


def test_generated_pictures_are_signed(command, base_stage, options, tmp_path):
    CascadePipeline.from_stages({"base": base_stage}).save_pretrained(tmp_path / "base")
    line = ("generate", tmp_path / "base", "-o", tmp_path / "out", "--steps", 1, "--seed", 0)
    assert command(*line, *options).code == 0
    for name in ("00000.png", "grid.png"):
        manifest = manifest_of(tmp_path / "out" / name)
        assert manifest.is_valid
        assert manifest.source_type == "trainedAlgorithmicMedia"


def test_options_that_do_not_fit_are_one_line(command, model, options, tmp_path):
    half = upscale(command, model, tmp_path, *options[:2])
    assert half.code == 2
    assert "need each other; give both" in " ".join(half.err.split())
    both = upscale(command, model, tmp_path, *options, "--no-metadata")
    assert both.code == 1
    assert "a signature is metadata" in both.err
    assert both.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_without_the_package_one_line_says_what_to_install(
    command, model, signer, options, tmp_path, monkeypatch
):
    save_png(Image.new("RGB", (8, 8)), tmp_path / "signed.png", SETTINGS, signer=signer)
    monkeypatch.setitem(sys.modules, "c2pa", None)
    done = upscale(command, model, tmp_path, *options)
    assert done.code == 1
    assert done.err.count("\n") == 1
    assert "need the package c2pa-python, which is not installed: pip install" in done.err
    assert (
        "manifest not checked: content credentials need"
        in command("inspect", tmp_path / "signed.png").out
    )
    assert "manifest" not in command("inspect", tmp_path / "photo.png").out
