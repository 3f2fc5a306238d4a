"""What the fuzz shares: saved tiny pipelines, a training run, and sound files to damage."""

from __future__ import annotations

import copy
import gzip
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from cascade.conditioning.low_resolution import LowResolution
from cascade.contract import Contract
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.imaging.rasters.dicom_mark import mark_dicom
from cascade.imaging.rasters.file_mark import FileMark
from cascade.imaging.rasters.nifti_mark import mark_nifti
from cascade.pipeline import CascadePipeline
from cascade.sampling.settings import SamplingSettings
from cascade.space import Space

FORMATS = {
    "png": {}, "jpg": {}, "gif": {}, "bmp": {}, "tga": {}, "webp": {"lossless": True}, "avif": {},
    "tif": {"compression": "tiff_lzw"},
}  # fmt: skip
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    b'xmlns:dc="http://purl.org/dc/elements/1.1/" dc:format="image/jpeg"/></rdf:RDF></x:xmpmeta>'
)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
IPTC = b"\x1c\x02\x78\x00\x05hello"
PHOTOSHOP = b"8BIM\x04\x04\x00\x00\x00\x00\x00\x0a" + IPTC
MARKER = b"\xff\xed" + (2 + 14 + len(PHOTOSHOP)).to_bytes(2, "big") + b"Photoshop 3.0\0" + PHOTOSHOP


@dataclass(frozen=True)
class Sound:
    """Files that are in order, to be damaged.

    Attributes:
        pictures: small pictures by name, one or more of each format.
        numbers: small files of measured numbers by name, one or more of each format.
        upscaler: folder of a saved pipeline 16 -> 32 px.
        doubler: folder of a saved pipeline that doubles images of one band of numbers.
        writer: folder of a saved pipeline that takes prompts and classes.
        run: folder of a finished training run, and the command that resumes it.
        command: that command.
    """

    pictures: Mapping[str, bytes]
    numbers: Mapping[str, bytes]
    upscaler: Path
    doubler: Path
    writer: Path
    run: Path
    command: list[str]


@pytest.fixture(scope="session")
def sound(_stages, _text_stages, command, tmp_path_factory) -> Sound:
    """Files that are in order."""
    root = tmp_path_factory.mktemp("sound")
    CascadePipeline.from_stages({"upsampler": _stages["upsampler"]}).save_pretrained(root / "x2")
    writer = CascadePipeline.from_stages(copy.deepcopy(_text_stages))
    writer.save_pretrained(root / "writer")
    (root / "images").mkdir()
    for number in range(8):
        shade = Image.new("RGB", (16, 16), (number * 30, 90, 200))
        shade.save(root / "images" / f"{number}.png")
    line = ["train", "tiny-16", f"data.path={root / 'images'}", *TRAINING]
    outcome = command(*line, "--out", root / "run")
    assert outcome.code == 0, outcome.err
    _doubler().save_pretrained(root / "doubler")
    return Sound(
        pictures=_pictures(),
        numbers=_numbers(),
        upscaler=root / "x2",
        doubler=root / "doubler",
        writer=root / "writer",
        run=root / "run",
        command=line,
    )


TRAINING = [
    "condition.labels=null",
    "sampling.guidance=1",
    "network.width=16",
    "network.depth=1",
    "network.fine_width=16",
    "network.fine_depth=1",
    "train.images=16",
    "train.batch_size=8",
    "train.warmup_images=0",
    "train.precision=fp32",
    "train.sample_every_images=0",
    "train.checkpoint_every_images=8",
]


def _doubler() -> CascadePipeline:
    torch.manual_seed(0)
    space = Space(size_px=16, channels=1, range=(0, 200))
    stage = DiffusionStage.build(
        Contract(space, (LowResolution(size_px=8),)),
        NoiseProcess(NoiseSchedule(train_steps=100)),
        network_options={"channels": (8,), "blocks": 1, "patch_size": 2},
        sampling=SamplingSettings(steps=1),
        embedding_dim=16,
    )
    return CascadePipeline.from_stages({"up": stage})


def _numbers() -> dict[str, bytes]:
    import nibabel
    import pydicom

    values = np.arange(120, dtype=np.int16).reshape(10, 12)
    volume = nibabel.Nifti1Image(np.stack([values.T, values.T + 1], -1), np.eye(4))
    dataset = pydicom.dcmread(Path(pydicom.__file__).parent / "data/test_files/MR_small.dcm")
    dataset.Rows, dataset.Columns, dataset.PixelData = 10, 12, values.tobytes()
    mark = FileMark(source="generated", settings={"command": "generate", "seed": 3})
    mark_dicom(dataset, mark, "a.dcm")
    mark_nifti(volume.header, mark, "a.nii")
    array, archive, marked, tiff, dicom = (io.BytesIO() for _ in range(5))
    np.save(array, values)
    np.savez_compressed(archive, first=values, second=values + 1)
    np.savez(marked, image=values, cascade=np.array(mark.text))
    tags = [(42113, "s", 0, "5", True), (700, "B", len(mark.packet), mark.packet, True)]
    tifffile.imwrite(tiff, values.astype(np.float32), extratags=tags)
    dataset.save_as(dicom)
    return {
        "a.npy": array.getvalue(),
        "a.npz": archive.getvalue(),
        "marked.npz": marked.getvalue(),
        "a.tif": tiff.getvalue(),
        "a.dcm": dicom.getvalue(),
        "a.nii": volume.to_bytes(),
        "a.nii.gz": gzip.compress(volume.to_bytes(), mtime=0),
    }


def _pictures() -> dict[str, bytes]:
    noise = np.random.default_rng(0).integers(30, 225, (3, 4, 4)).astype(np.uint8)
    image = Image.fromarray(noise).resize((20, 14))
    images = {
        f"a.{ending}": _encoded(image.convert("RGB"), ending, **options)
        for ending, options in FORMATS.items()
    }
    images["alpha.png"] = _encoded(image, "png")
    images["grey.jpg"] = _encoded(image.convert("L"), "jpg")
    images["palette.png"] = _encoded(image.convert("RGB").quantize(7), "png")
    images |= _described(image.convert("RGB"))
    more = [image.convert("RGB").rotate(90), image.convert("RGB").rotate(180)]
    images["moving.gif"] = _encoded(image.convert("RGB"), "gif", save_all=True, append_images=more)
    images["pages.tif"] = _encoded(image.convert("RGB"), "tif", save_all=True, append_images=more)
    deep = np.asarray(image.convert("RGB")).astype(np.uint16) * 257
    for name, values, options in (
        ("deep.tif", deep, {"photometric": "rgb"}),
        ("planes.tif", np.moveaxis(deep, -1, 0).copy(), {"planarconfig": "separate"}),
        ("grey16.tif", deep[..., 0], {"compression": "deflate", "predictor": True}),
    ):
        file = io.BytesIO()
        tifffile.imwrite(file, values, **options)
        images[name] = file.getvalue()
    return images


def _encoded(image: Image.Image, ending: str, **options) -> bytes:
    file = io.BytesIO()
    kind = Image.registered_extensions()[f".{ending}"]
    image.save(file, kind, **options)
    return file.getvalue()


def _described(image: Image.Image) -> dict[str, bytes]:
    """Pictures with EXIF, XMP, IPTC, a profile and texts."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010E], exif[0x9286] = 6, "a garden", "note"
    exif.get_ifd(0x8769)[0x9003] = "2001:02:03 04:05:06"
    rest = {"exif": exif, "icc_profile": PROFILE}
    texts = PngInfo()
    texts.add_text("Title", "a garden")
    texts.add_itxt("XML:com.adobe.xmp", XMP.decode(), zip=True)
    jpeg = _encoded(image, "jpg", **rest, xmp=XMP, comment=b"a comment")
    tags = {270: "a garden", 700: XMP, 33723: IPTC, 34377: PHOTOSHOP}
    return {
        "described.png": _encoded(image, "png", **rest, pnginfo=texts, dpi=(300, 300)),
        "described.jpg": jpeg[:2] + MARKER + jpeg[2:],
        "described.webp": _encoded(image, "webp", **rest, xmp=XMP),
        "described.tif": _encoded(image, "tif", tiffinfo=tags, icc_profile=PROFILE),
    }
