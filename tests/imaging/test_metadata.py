"""What belongs to a picture goes from every container into every other one that can hold it."""

from __future__ import annotations

import io
import json
import shutil
import struct
import subprocess
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from cascade.imaging.exif_blocks import MAIN, read_directories
from cascade.imaging.kept_metadata import kept
from cascade.imaging.marks import NEWSCODES, with_mark
from cascade.imaging.metadata import COMMENT, Loss, Metadata, Text
from cascade.imaging.metadata_reading import read_metadata
from cascade.imaging.photoshop_resources import metadata_of_resources, write_resources
from cascade.imaging.picture import Picture, picture_of_pil
from cascade.imaging.picture_reading import decode_picture, read_picture
from cascade.imaging.picture_writing import lost_metadata, write_picture
from cascade.imaging.vips import cause_of

PIXELS = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
XMP = """<?xpacket begin='\ufeff' id='W5M0MpCehiHzreSzNTczkc9d'?>
<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'>
<rdf:Description rdf:about='' xmlns:tiff='http://ns.adobe.com/tiff/1.0/'
  xmlns:exif='http://ns.adobe.com/exif/1.0/' xmlns:dc='http://purl.org/dc/elements/1.1/'
  tiff:Orientation='{orientation}' tiff:ImageWidth='{width}' exif:PixelYDimension='{height}'>
 <exif:ColorSpace>{space}</exif:ColorSpace><dc:source>Zoë &amp; Ann</dc:source>
</rdf:Description></rdf:RDF></x:xmpmeta>
<?xpacket end='w'?>"""
STORED_XMP = XMP.format(orientation=1, width=7, height=5, space=65535).encode()
UPSCALED_XMP = XMP.format(orientation=1, width=14, height=10, space=65535).encode()
MARKS = {
    "XMP-iptcExt:DigitalSourceType": NEWSCODES + "compositeWithTrainedAlgorithmicMedia",
    "XMP-iptcExt:AISystemUsed": "Cascade",
}
MARKED_XMP = with_mark(UPSCALED_XMP, "restored", {"seed": 5})
IPTC = b"\x1c\x01\x5a\0\3\x1b%G\x1c\x02\x05\0\6Title!\x1c\x02\x19\0\3cat"
DIGEST = (0x0425, bytes(range(16)))
JPEG_XMP, PHOTOSHOP = b"http://ns.adobe.com/xap/1.0/\0", b"Photoshop 3.0\0"


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", 2 + len(body)) + body


def saved(kind: str, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, kind, **options)
    return file.getvalue()


def jpeg(*segments: bytes) -> bytes:
    data = saved("JPEG", quality=100)
    return data[:2] + b"".join(segments) + data[2:]


def rich_png() -> bytes:
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", STORED_XMP.decode())
    resources = write_resources([(0x0404, IPTC), DIGEST]).hex()
    profile = f"\niptc\n{len(resources) // 2:8}\n{resources}\n"
    info.add_text("Raw profile type iptc", profile, zip=True)
    return saved("PNG", pnginfo=info)


def rich_tiff() -> bytes:
    file = io.BytesIO()
    words = IPTC + bytes(-len(IPTC) % 4)  # as many programs store it: whole numbers of 32 bits
    tags = [(700, 1, len(STORED_XMP), STORED_XMP, True)]
    tags.append((33723, 4, len(words) // 4, struct.unpack(f"<{len(words) // 4}L", words), True))
    resources = write_resources([DIGEST])
    tags.append((34377, 1, len(resources), resources, True))
    tifffile.imwrite(file, PIXELS, photometric="rgb", extratags=tags, metadata=None, byteorder="<")
    return file.getvalue()


def rich_jpeg() -> bytes:
    resources = write_resources([(0x03ED, b"old"), (0x0404, IPTC), DIGEST])
    return jpeg(segment(0xE1, JPEG_XMP + STORED_XMP), segment(0xED, PHOTOSHOP + resources))


SOURCES = {
    "png": (rich_png, True),
    "jpg": (rich_jpeg, True),
    "tif": (rich_tiff, True),
    "webp": (lambda: saved("WEBP", xmp=STORED_XMP, lossless=True), False),
    "avif": (lambda: saved("AVIF", xmp=STORED_XMP), False),
}


def decoded(data: bytes) -> Picture:
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        if image.format == "AVIF":
            return picture_of_pil(image, read_metadata(data, {}), "a")
    return decode_picture(data, "a")


def upscaled(picture: Picture) -> Picture:
    return picture.with_pixels(picture.colour.repeat(1, 2, 2), None)


@pytest.mark.parametrize("target", ["png", "jpg", "tif", "webp"])
@pytest.mark.parametrize("source", SOURCES)
def test_xmp_and_iptc_go_where_the_format_holds_them(tmp_path, source, target):
    make, has_iptc = SOURCES[source]
    picture, path = upscaled(decoded(make())), tmp_path / f"a.{target}"
    write_picture(picture, path, settings={"seed": 5})
    with Image.open(path) as image:
        image.load()
        assert image.info["xmp"] == MARKED_XMP
        if target == "jpg":
            iptc = image.info.get("photoshop", {}).get(0x0404)
        elif target == "tif":
            iptc = tifffile.TiffFile(path).pages[0].tags.valueof(33723)
        else:
            iptc = IPTC if target == "png" and IPTC.hex() in image_text(image) else None
    expected = IPTC if has_iptc and target != "webp" else None
    assert iptc == expected
    metadata = read_picture(path).metadata
    assert (metadata.xmp, metadata.iptc) == (MARKED_XMP, expected)
    assert metadata.photoshop == ((DIGEST,) if expected else ())
    lost = (Loss("IPTC", "WebP cannot hold it"),) if has_iptc and target == "webp" else ()
    assert lost_metadata(picture, path) == lost
    write_picture(picture, path, metadata=False)
    assert read_picture(path).metadata == Metadata()
    assert b"xmp" not in path.read_bytes().lower()


def image_text(image: Image.Image) -> str:
    return "".join(image.text.get("Raw profile type iptc", "").split())


TEXTS = (
    Text(keyword="Title", text="Grandma, Zoë"),
    Text(keyword="Author", text="猫"),
    Text(keyword="Long", text="word " * 400),
    Text(keyword="Title", text="Oma", language="de", translated="Titel"),
    Text(keyword=COMMENT, text="seen"),
)


def png_with_texts() -> bytes:
    info = PngInfo()
    info.add_text("Title", "Grandma, Zoë")
    info.add_itxt("Author", "猫", zip=True)
    info.add_text("Long", "word " * 400, zip=True)
    info.add_itxt("Title", "Oma", lang="de", tkey="Titel")
    info.add_text("Comment", "seen")
    info.add_text("cascade", '{"seed": 5}')
    return saved("PNG", pnginfo=info)


def test_texts_and_comments_are_kept_where_there_is_a_place(tmp_path):
    picture = decode_picture(png_with_texts(), "a")
    assert picture.metadata.texts == TEXTS
    write_picture(picture, tmp_path / "a.png", settings={"seed": 6})
    assert read_picture(tmp_path / "a.png").metadata.texts == TEXTS
    with Image.open(tmp_path / "a.png") as image:
        text = image.text
    expected = {"Author": "猫", "Long": "word " * 400, COMMENT: "seen", "cascade": '{"seed": 6}'}
    assert {key: text[key] for key in expected} == expected
    write_picture(picture, tmp_path / "a.jpg")
    assert read_picture(tmp_path / "a.jpg").metadata.texts == (TEXTS[-1],)
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.info["comment"] == b"seen"
    texts = Loss("PNG texts", "JPEG cannot hold them")
    assert lost_metadata(picture, tmp_path / "a.jpg") == (texts,)
    lost = lost_metadata(picture, tmp_path / "a.tif")
    assert [loss.what for loss in lost] == ["PNG texts", "comments"]


@pytest.mark.parametrize("kind", ["JPEG", "GIF"])
def test_comments_become_texts_of_png(tmp_path, kind):
    write_picture(decode_picture(saved(kind, comment=b"Gr\xfc\xdfe"), "a"), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.text[COMMENT] == "Grüße"


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">L", len(body)) + name + body + struct.pack(">L", zlib.crc32(name + body))


def png_with_chunks(*chunks: bytes, **options) -> bytes:
    data = saved("PNG", **options)
    return data[:33] + b"".join(chunks) + data[33:]


GAMMA, CICP = (b"gAMA", struct.pack(">L", 100_000)), (b"cICP", bytes([9, 16, 0, 1]))
PLAIN_GAMMA, SRGB = (b"gAMA", struct.pack(">L", 45455)), (b"sRGB", b"\0")


@pytest.mark.parametrize(
    ("chunks", "has_profile", "lost"),
    [
        ([GAMMA, CICP], False, "cICP, gAMA"),
        ([GAMMA], False, "gAMA"),
        ([GAMMA], True, ""),  # a profile overrides it
        ([PLAIN_GAMMA, SRGB], False, ""),  # what other formats mean without a word
    ],
)
def test_colour_chunks_of_png_stay_with_png(tmp_path, srgb_profile, chunks, has_profile, lost):
    options = {"icc_profile": srgb_profile} if has_profile else {}
    picture = decode_picture(png_with_chunks(*(chunk(*each) for each in chunks), **options), "a")
    write_picture(picture, tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png").metadata.colour_chunks == tuple(chunks)
    assert b"".join(chunk(*each) for each in chunks) in (tmp_path / "a.png").read_bytes()
    losses = lost_metadata(picture, tmp_path / "a.jpg")
    assert [loss.what for loss in losses] == ([f"PNG colour chunks {lost}"] if lost else [])
    without = lost_metadata(picture, tmp_path / "a.png", metadata=False)
    assert [loss.what for loss in without] == [loss.what for loss in losses]
    assert not lost_metadata(picture, tmp_path / "a.png")
    if has_profile:
        assert not picture.in_srgb().metadata.colour_chunks


def test_a_compressed_text_that_grows_too_large_is_left_out_and_reported():
    bomb = chunk(b"zTXt", b"Title\0\0" + zlib.compress(bytes(2**25)))
    metadata = read_metadata(png_with_chunks(bomb), {})
    assert metadata == Metadata(losses=(Loss("PNG texts", "they are damaged or too long"),))


@pytest.mark.parametrize("source", SOURCES)
def test_a_file_cut_off_anywhere_yields_metadata_and_no_error(source):
    data = SOURCES[source][0]()
    for end in range(0, len(data), 41):
        read_metadata(data[:end], {})
        read_metadata(data[:end] + b"\xff" * 20 + data[end + 20 :], {})


def test_extended_xmp_is_joined_and_split_again(tmp_path):
    big = STORED_XMP.replace(b"</rdf:Desc", b"<dc:big>" + b"x" * 150_000 + b"</dc:big></rdf:Desc")
    picture = Picture(
        colour=torch.zeros(3, 5, 7, dtype=torch.uint8), metadata=Metadata(xmp=big, iptc=IPTC * 3000)
    )
    write_picture(picture, tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    assert data.count(b"http://ns.adobe.com/xmp/extension/\0") == 3
    back = read_picture(tmp_path / "a.jpg").metadata
    assert back.iptc == IPTC * 3000
    assert back.xmp is not None
    assert back.xmp.count(b"<dc:big>" + b"x" * 150_000) == 1
    assert b"Zo\xc3\xab" in back.xmp
    assert not lost_metadata(picture, tmp_path / "a.jpg")
    cut = data.replace(struct.pack(">LL", 0, 0), b"", 1).replace(b"extension/", b"nothing//", 1)
    assert Loss("extended XMP", "it is incomplete or damaged") in read_metadata(cut, {}).losses


def test_damaged_xmp_is_reported_and_not_written(tmp_path):
    for damaged in (STORED_XMP[:-60], b"<!DOCTYPE a>" + STORED_XMP):
        picture = decode_picture(jpeg(segment(0xE1, JPEG_XMP + damaged)), "a")
        assert picture.metadata == Metadata(losses=(Loss("XMP", "it is damaged"),))


def test_colour_space_follows_the_pixels():
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 65535
    stored = Metadata(exif=exif.tobytes(), xmp=STORED_XMP, colour_chunks=(GAMMA,))
    spaces = {}
    for is_srgb_now in (False, True):
        metadata = kept(stored, (5, 7), is_srgb_now=is_srgb_now)
        block = Image.Exif()
        block.load(metadata.exif or b"")
        space = metadata.xmp.split(b"ColorSpace>")[1].split(b"<")[0] if metadata.xmp else b""
        spaces[is_srgb_now] = (block.get_ifd(0x8769)[0xA001], space, metadata.colour_chunks)
    assert spaces == {False: (65535, b"65535", (GAMMA,)), True: (1, b"1", ())}


def test_cmyk_becomes_srgb_in_its_metadata_too():
    file = io.BytesIO()
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 65535
    Image.new("CMYK", (7, 5)).save(file, "JPEG", exif=exif, xmp=STORED_XMP)
    metadata = decode_picture(file.getvalue(), "a").metadata
    block = Image.Exif()
    block.load(metadata.exif or b"")
    assert block.get_ifd(0x8769)[0xA001] == 1
    assert b"<exif:ColorSpace>1</exif:ColorSpace>" in (metadata.xmp or b"")


@pytest.mark.parametrize(
    ("description", "is_kept"),
    [
        ('{"shape": [5, 7, 3]}', False),
        ("ImageJ=1.54f\nimages=3\n", False),
        ('<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME">', False),
        ("Aperio Image Library v10\n46920x33014", False),
        ("shape=(32, 48, 3)", False),
        (
            '<scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01"><collection/></scn>',
            False,
        ),
        ("<PerkinElmer-QPI-ImageDescription/>", False),
        ("A shape of 5 by 7", True),
        ('{"title": "Grandma"}', True),
    ],
)
def test_a_description_of_the_old_layout_is_left_out_and_reported(description, is_kept):
    file = io.BytesIO()
    tifffile.imwrite(file, PIXELS, photometric="rgb", description=description, metadata=None)
    metadata = decode_picture(file.getvalue(), "a").metadata
    assert (description.encode()[:12] in (metadata.exif or b"")) == is_kept
    lost = Loss("image description", "it describes the layout of the old file")
    assert (lost in metadata.losses) == (not is_kept)


@pytest.mark.parametrize("options", [{}, {"bigtiff": True}, {"byteorder": ">"}])
@pytest.mark.parametrize("description", ["Mond, Platte 12", "M"])
def test_a_description_beside_that_of_the_layout_is_kept(description, options):
    file = io.BytesIO()
    with tifffile.TiffWriter(file, **options) as writer:
        writer.write(PIXELS, photometric="rgb", description=description)
    metadata = decode_picture(file.getvalue(), "a").metadata
    main = read_directories(metadata.exif or b"")[MAIN]
    assert main[270] == description.encode()
    assert metadata.losses == ()


def test_maker_notes_private_fields_paths_and_credentials_are_reported():
    exif = Image.Exif()
    exif[0x9999] = "private"
    exif.get_ifd(0x8769)[0x927C] = b"private"
    data = saved("JPEG", exif=exif)
    credentials = segment(0xEB, b"JP\0\1jumb")
    paths = segment(0xED, PHOTOSHOP + write_resources([(0x07D0, b"path")]))
    data = data[:2] + credentials + paths + data[2:]
    names = {loss.what for loss in decode_picture(data, "a").metadata.losses}
    expected = {"maker notes", "private TIFF fields", "Photoshop paths", "content credentials"}
    assert names == expected


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize(
    ("change", "is_kept", "what"),
    [
        (lambda profile: profile + bytes(8), True, "bytes after the end of the colour profile"),
        (lambda profile: profile + b"x" * 5, True, "bytes after the end of the colour profile"),
        (lambda profile: profile[:-7], False, "colour profile"),
        (lambda profile: profile[:36] + b"none" + profile[40:], False, "colour profile"),
    ],
)
def test_a_profile_of_a_wrong_length_is_trimmed_or_dropped(
    tmp_path, srgb_profile, suffix, change, is_kept, what
):
    picture = decode_picture(saved("PNG", icc_profile=change(srgb_profile)), "a")
    write_picture(picture, tmp_path / f"a.{suffix}")
    assert read_picture(tmp_path / f"a.{suffix}").profile == (srgb_profile if is_kept else None)
    for metadata in (True, False):
        losses = lost_metadata(picture, tmp_path / f"a.{suffix}", metadata=metadata)
        assert [loss.what for loss in losses] == [what]


def test_a_profile_that_libpng_refuses_is_written_all_the_same(tmp_path):
    odd = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes() + b"\0")
    odd[:4] = len(odd).to_bytes(4, "big")  # not a multiple of four
    picture = decode_picture(saved("PNG", icc_profile=bytes(odd)), "a")
    write_picture(picture, tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png").profile == bytes(odd)


@pytest.mark.parametrize(
    ("detail", "cause"),
    [
        ("target: write error\nsystem error: File too large\nwbuffer_write: write failed\n"
         "system error: Unknown error -1\n", "File too large"),
        ("VipsJpeg: unable to write to target\nVipsJpeg: Bogus size\n", "VipsJpeg: Bogus size"),
        ("tiff2vips: Decoding error at scanline 0.\ntiffload_buffer: load error\n",
         "tiff2vips: Decoding error at scanline 0"),
        ("vips2png: unable to write to target target\n",
         "libvips names no cause; it reports 'vips2png: unable to write to target target'"),
        ("", "libvips names no cause"),
    ],
)  # fmt: skip
def test_errors_of_libvips_name_their_cause(detail, cause):
    error = Exception("unable to call")
    error.detail = detail  # pyright: ignore[reportAttributeAccessIssue]
    assert cause_of(error) == cause


def test_damaged_resources_end_at_the_damage():
    data = write_resources([(0x0404, IPTC), DIGEST])
    assert metadata_of_resources(data).iptc == IPTC
    assert metadata_of_resources(data[:-3]) == Metadata(iptc=IPTC)
    assert metadata_of_resources(data[:20]) == Metadata()


# ---- by exiftool --------------------------------------------------------------------------------

FIELDS = """-XMP-dc:Title=Grüße|-XMP-dc:Subject=a|-XMP-dc:Subject=b|-XMP-xmp:Rating=4
-XMP-tiff:Orientation#=6|-XMP-exif:ExifImageWidth=7|-XMP-photoshop:Credit=x|-XMP-dc:Rights-de=ich
-IPTC:Headline=Head|-IPTC:Keywords=k1|-IPTC:Keywords=k2|-IPTC:Caption-Abstract=Café
-IPTC:CodedCharacterSet=UTF8|-EXIF:Artist=Zoë|-EXIF:Copyright=me|-EXIF:ImageDescription=a view
-EXIF:UserComment=größe|-EXIF:ColorSpace#=65535|-EXIF:LensModel=L|-EXIF:Orientation#=6
-EXIF:ExposureTime=1/250|-EXIF:SerialNumber=12|-EXIF:XResolution=300|-EXIF:YResolution=300
-EXIF:ResolutionUnit=inches|-GPS:GPSLatitude=51.5|-GPS:GPSLatitudeRef=N|-GPS:GPSLongitude=7.5
-GPS:GPSLongitudeRef=E|-GPS:GPSAltitude=12""".replace("\n", "|").split("|")
RENEWED = ("Orientation", "ImageWidth", "ImageHeight", "ImageHistory")
OF_THE_FILE = ("Strip", "BitsPer", "Planar", "Photometric", "Compression", "Predictor", "Sample")
OF_THE_FILE += ("RowsPer", "ThumbnailO", "ThumbnailL")


def seen_by_exiftool(paths) -> dict[str, dict]:
    """What exiftool reads in files, by their names; one call, since each takes long to start."""
    command = ["exiftool", "-j", "-G1", "-struct", *map(str, paths)]
    files = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    groups = ("XMP", "IPTC", "IFD0", "ExifIFD", "GPS", "InteropIFD", "ExifTool")
    return {
        Path(values["SourceFile"]).name: {
            key: value
            for key, value in values.items()
            if key.startswith(groups) and key != "ExifTool:ExifToolVersion"
            if not any(word in key for word in RENEWED + OF_THE_FILE)
        }
        for values in files
    }


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="exiftool is not installed")
def test_exiftool_reads_the_same_before_and_after(tmp_path):
    for has_iptc in (True, False):
        sources = [name for name in SOURCES if SOURCES[name][1] == has_iptc]
        for name in sources:
            kind = {"jpg": "JPEG", "tif": "TIFF"}.get(name, name.upper())
            dpi = {"dpi": (300, 300)} if has_iptc else {}
            (tmp_path / f"{name}.{name}").write_bytes(saved(kind, **dpi))
        fields = [each for each in FIELDS if has_iptc or not each.startswith("-IPTC")]
        paths = [tmp_path / f"{name}.{name}" for name in sources]
        command = ["exiftool", "-q", "-m", "-overwrite_original", *fields, *paths]
        subprocess.run(command, check=True)
    before = seen_by_exiftool(tmp_path.iterdir())
    results = {}
    for source in SOURCES:
        picture = upscaled(decoded((tmp_path / f"{source}.{source}").read_bytes()))
        for target in ("png", "jpg", "tif", "webp"):
            results[source, target] = tmp_path / f"{source}-{target}.{target}"
            write_picture(picture, results[source, target], settings={"seed": 5})
    after = seen_by_exiftool(results.values())
    for (source, target), path in results.items():
        expected = before[f"{source}.{source}"]
        assert len(expected) > 20
        if target == "webp":
            expected = {key: each for key, each in expected.items() if not key.startswith("IPTC")}
        assert after[path.name] == {**expected, **MARKS}, (source, target)


def test_what_with_pixels_keeps_and_drops():
    metadata = Metadata(xmp=STORED_XMP, colour_chunks=(GAMMA,))
    grey = Picture(colour=torch.zeros(1, 5, 7, dtype=torch.uint8), metadata=metadata)
    colour = grey.with_pixels(torch.zeros(3, 5, 7, dtype=torch.uint8), None)
    assert colour.metadata.colour_chunks == ()
    assert [loss.what for loss in colour.metadata.losses] == ["PNG colour chunks gAMA"]
    assert replace(grey, metadata=Metadata()).with_pixels(grey.colour, None).metadata == Metadata()
