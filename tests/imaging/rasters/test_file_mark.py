"""Files of bands say that a trained model made them, in words that other programs read."""

from __future__ import annotations

import gzip
import json
import re
import struct
import subprocess
import tracemalloc
from dataclasses import replace
from pathlib import Path
from shutil import which

import numpy as np
import pytest
import tifffile

from cascade.errors import DataError, OutputError
from cascade.imaging.marks import NEWSCODES, mark_of
from cascade.imaging.rasters.file_mark import FileMark, read_text
from cascade.imaging.rasters.layout import Layout
from cascade.imaging.rasters.raster import Raster
from cascade.imaging.rasters.reading import open_rasters, read_raster
from cascade.imaging.rasters.recorded import read_mark
from cascade.imaging.rasters.tiff_writing import write_tiff
from cascade.imaging.rasters.writing import write_rasters

SETTINGS = {"command": "upscale", "model": "scans-ü", "version": "1.2", "seed": 3, "scale": 2.0}
RESTORED = FileMark(source="restored", settings=SETTINGS)
GENERATED = FileMark(source="generated", settings={**SETTINGS, "seed": 4})
TYPE = "compositeWithTrainedAlgorithmicMedia"
OME_SIZES = {"axes": "ZCYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}


def values(*shape: int, dtype: str = "uint16") -> np.ndarray:
    return np.random.default_rng(0).integers(0, 900, shape).astype(dtype)


def geotiff(path: Path) -> None:
    keys = (1, 1, 0, 2, 1024, 0, 1, 1, 3072, 0, 1, 32633)
    tags = [
        (33550, "d", 3, (10.0, 10.0, 0.0), True),
        (33922, "d", 6, (0.0, 0.0, 0.0, 500_000.0, 5_000_000.0, 0.0), True),
        (34735, "H", len(keys), keys, True),
        (42113, "s", 0, "7", True),
    ]
    options = {"photometric": "minisblack", "planarconfig": "contig"}
    tifffile.imwrite(path, values(8, 12, 5), extratags=tags, **options)


def ome_tiff(path: Path) -> None:
    tifffile.imwrite(
        path, values(3, 2, 8, 12), ome=True, photometric="minisblack", metadata=OME_SIZES
    )


def nifti(path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.Nifti1Image(values(8, 12, 3, dtype="int16"), np.diag([2.0, 3.0, 4.0, 1.0]))
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension(6, b"a comment of a scanner"))
    image.header["descrip"] = b"scanner 5"
    nibabel.save(image, path)


def plain_nifti(path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    nibabel.save(nibabel.Nifti1Image(values(8, 12, 3, dtype="int16"), np.eye(4)), path)


def dicom(path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    source = Path(pydicom.__file__).parent / "data" / "test_files" / "CT_small.dcm"
    head = pydicom.dcmread(source)
    other = pydicom.Dataset()
    other.Manufacturer, other.ContributionDescription = "Somebody", "moved"
    head.ContributingEquipmentSequence = [other]
    head.DerivationDescription = "lossless"
    head.ImageType = ["ORIGINAL", "SECONDARY", "AXIAL"]
    head.save_as(path)


MAKERS = {
    "a.tif": geotiff,
    "a.ome.tif": ome_tiff,
    "a.dcm": dicom,
    "a.nii": nifti,
    "a.nii.gz": nifti,
    "plain.nii": plain_nifti,
    "a.npz": lambda path: np.savez(path, image=values(2, 8, 12)),
}


def rasters(path: Path) -> list[Raster]:
    bands = {".tif": 5, ".npz": 2}.get(path.suffix, 1)
    layout = Layout(2 if "ome" in path.name else bands)
    with path.open("rb") as stream:
        file = open_rasters(stream, path.name, layout)
        return [file.image(number) for number in range(len(file))]


@pytest.mark.parametrize("name", MAKERS)
def test_a_mark_is_read_back_and_changes_neither_numbers_nor_place(name, tmp_path):
    MAKERS[name](tmp_path / name)
    before = rasters(tmp_path / name)
    assert read_mark(tmp_path / name).record == {}
    bare, marked = tmp_path / f"bare-{name}", tmp_path / f"marked-{name}"
    write_rasters(bare, before, len(before))
    write_rasters(marked, before, len(before), mark=RESTORED)
    assert (read_mark(bare).mark, read_mark(bare).record) == ({}, {})
    read = read_mark(marked)
    assert read.record == SETTINGS
    assert read.mark["DigitalSourceType"] == TYPE
    assert read.mark["AISystemVersionUsed"] == "1.2"
    assert "Cascade scans-" in read.mark["AISystemUsed"]
    for one, other in zip(rasters(bare), rasters(marked), strict=True):
        assert np.array_equal(one.values, other.values)
        assert one.nodata == other.nodata
        assert not other.origin.is_generated
        if name.endswith(".tif"):
            assert replace(one.origin, tags={}) == replace(other.origin, tags={})
            assert one.origin.tags == other.origin.tags


@pytest.mark.parametrize("name", MAKERS)
def test_a_second_mark_takes_the_place_of_the_first(name, tmp_path):
    MAKERS[name](tmp_path / name)
    write_rasters(tmp_path / name, rasters(tmp_path / name)[:1], mark=GENERATED)
    (again,) = rasters(tmp_path / name)[:1]
    assert again.origin.is_generated
    write_rasters(tmp_path / name, [again], mark=FileMark.of_result(SETTINGS, is_generated=True))
    read = read_mark(tmp_path / name)
    assert (read.mark["DigitalSourceType"], read.record["seed"]) == ("trainedAlgorithmicMedia", 3)
    data = (tmp_path / name).read_bytes()
    if not name.endswith((".gz", ".npz")):
        assert b'"seed": 4' not in data  # nothing of the first one is left
        assert data.count(b'"seed": 3') == 1


def content_without_ids(path: Path) -> object:
    """All that a file says, without names and numbers that every file has of its own."""
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes())
    if path.suffix == ".dcm":
        dataset = pytest.importorskip("pydicom").dcmread(path)
        del dataset.SOPInstanceUID, dataset.SeriesInstanceUID
        return dataset
    return re.sub(rb'UUID="urn:uuid:[^"]+"', b"", path.read_bytes())


@pytest.mark.parametrize("name", MAKERS)
def test_a_file_written_without_a_mark_has_no_earlier_one_either(name, tmp_path):
    MAKERS[name](tmp_path / name)
    before = rasters(tmp_path / name)
    bare, marked = tmp_path / f"bare-{name}", tmp_path / f"marked-{name}"
    again = tmp_path / f"again-{name}"
    write_rasters(bare, before, len(before))
    write_rasters(marked, before, len(before), mark=RESTORED)
    write_rasters(again, rasters(marked), len(before))
    assert not read_mark(again).record
    contents = [content_without_ids(each) for each in (bare, again)]
    assert contents[0] == contents[1]


def test_without_a_mark_dicom_keeps_what_others_say(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    dicom(tmp_path / "a.dcm")
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    dataset.SyntheticData, dataset.DerivationDescription = "YES", "a;  b ; c; "
    dataset.save_as(tmp_path / "a.dcm")
    write_rasters(tmp_path / "b.dcm", rasters(tmp_path / "a.dcm"))
    again = pydicom.dcmread(tmp_path / "b.dcm")
    assert (again.SyntheticData, again.DerivationDescription) == ("YES", "a;  b ; c;")
    assert [each.Manufacturer for each in again.ContributingEquipmentSequence] == ["Somebody"]


# ---- what other programs read -------------------------------------------------------------------


def test_a_geotiff_holds_xmp_and_keeps_its_place(tmp_path):
    geotiff(tmp_path / "a.tif")
    write_rasters(tmp_path / "b.tif", rasters(tmp_path / "a.tif"), description="x", mark=RESTORED)
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        tags = file.pages[0].tags
        assert mark_of(tags[700].value)["DigitalSourceType"] == TYPE
        assert json.loads(tags[37395].value) == SETTINGS
        assert tags[270].value == "x"
        assert file.geotiff_metadata["ProjectedCSTypeGeoKey"] == 32633
    if which("gdalinfo") is None:
        pytest.skip("gdalinfo is not installed")
    done = subprocess.run(
        ["gdalinfo", "-json", "-mdd", "xml:XMP", tmp_path / "b.tif"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    facts = json.loads(done.stdout)
    assert facts["geoTransform"] == [500_000, 10, 0, 5_000_000, 0, -10]
    assert facts["size"] == [12, 8]
    assert [band["noDataValue"] for band in facts["bands"]] == [7] * 5
    assert TYPE in json.dumps(facts["metadata"]["xml:XMP"])


def test_an_ome_tiff_stays_one(tmp_path):
    ome_tiff(tmp_path / "a.ome.tif")
    write_rasters(tmp_path / "b.ome.tif", rasters(tmp_path / "a.ome.tif"), 3, mark=RESTORED)
    with tifffile.TiffFile(tmp_path / "b.ome.tif") as file:
        assert file.is_ome
        assert 'PhysicalSizeX="0.5"' in file.ome_metadata
        assert file.series[0].shape == (3, 2, 8, 12)
        pages = [page.aspage().tags for page in file.pages]
        assert mark_of(pages[0][700].value)["DigitalSourceType"] == TYPE
        assert not any(700 in tags or 37395 in tags for tags in pages[1:])


def test_pages_of_a_tiff_repeat_no_mark(tmp_path):
    write_rasters(tmp_path / "a.tif", [Raster(values=values(1, 8, 8))] * 3, 3, mark=RESTORED)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        marked = [700 in page.aspage().tags for page in file.pages]
    assert marked == [True, False, False]


def test_the_first_page_of_a_tiff_speaks_for_all(tmp_path):
    two = [Raster(values=values(1, 8, 8))] * 2
    for mark in (GENERATED, RESTORED):
        write_rasters(tmp_path / "a.tif", two, 2, mark=mark)
        origins = [read_raster(tmp_path / "a.tif", number).origin for number in (0, 1)]
        assert [each.is_generated for each in origins] == [mark is GENERATED] * 2


def xmp_tag(kind: str) -> tuple[int, object, int, object, bool]:
    """The XMP of a mark as a tag of tifffile, stored as some programs do."""
    packet = GENERATED.packet
    if kind == "text":
        return (700, "s", 0, packet.decode().encode("ascii", "ignore").decode(), True)
    if kind == "utf-16":
        packet = packet.decode().encode("utf-16")
    if kind == "numbers":
        packet += b" " * (-len(packet) % 4)
        numbers = tuple(np.frombuffer(packet, "<u4").tolist())
        return (700, "I", len(numbers), numbers, True)
    return (700, "B", len(packet), packet, True)


@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("kind", ["bytes", "text", "numbers", "utf-16"])
def test_a_tiff_is_known_as_generated_however_its_xmp_is_stored(tmp_path, kind, bigtiff):
    options = {"photometric": "minisblack", "byteorder": "<", "bigtiff": bigtiff}
    tags = [xmp_tag(kind)]
    tifffile.imwrite(tmp_path / "a.tif", values(8, 12), extratags=tags, **options)
    assert read_mark(tmp_path / "a.tif").is_generated
    assert read_raster(tmp_path / "a.tif").origin.is_generated


def test_a_file_of_more_than_4_gib_is_read_back_too(tmp_path):
    with (tmp_path / "a.tif").open("wb") as file:
        write_tiff(file, [Raster(values=values(2, 8, 8))], 5 * 2**30, mark=RESTORED)
    assert (tmp_path / "a.tif").read_bytes().startswith(b"II+")
    read = read_mark(tmp_path / "a.tif")
    assert (read.mark["DigitalSourceType"], read.record) == (TYPE, SETTINGS)


def test_dicom_says_it_in_elements_of_the_standard(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    dicom(tmp_path / "a.dcm")
    write_rasters(tmp_path / "b.dcm", rasters(tmp_path / "a.dcm"), mark=RESTORED)
    dataset = pydicom.dcmread(tmp_path / "b.dcm")
    assert dataset.SyntheticData == "YES"
    assert dataset.ImageType == ["DERIVED", "SECONDARY", "AXIAL"]
    assert dataset.DerivationDescription == f"lossless; {TYPE}: Cascade scans-? 1.2"
    before, ours = dataset.ContributingEquipmentSequence
    assert before.Manufacturer == "Somebody"
    assert (ours.Manufacturer, ours.ManufacturerModelName) == ("Cascade", "scans-?")
    assert (ours.SoftwareVersions, ours.ContributionDescription) == ("1.2", NEWSCODES + TYPE)
    (algorithm,) = dataset.DerivationAlgorithmSequence
    codes = pytest.importorskip("pydicom.sr.codedict").codes
    for (item,), code in (
        (ours.PurposeOfReferenceCodeSequence, codes.cid7005.SynthesizingEquipment),
        (algorithm.AlgorithmFamilyCodeSequence, codes.DCM.ArtificialIntelligence),
    ):
        stored = item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning
        assert stored == (code.value, code.scheme_designator, code.meaning)
    assert json.loads(algorithm.AlgorithmParameters)["cascade"] == SETTINGS


def test_big_endian_dicom_is_written_in_the_usual_order(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    files = Path(pydicom.__file__).parent / "data" / "test_files"
    dataset = pydicom.dcmread(files / "MR_small_bigendian.dcm")
    dataset.RedPaletteColorLookupTableData = b"\1\2\3\4"
    dataset.save_as(tmp_path / "a.dcm")
    write_rasters(tmp_path / "b.dcm", rasters(tmp_path / "a.dcm"), mark=RESTORED)
    again, usual = pydicom.dcmread(tmp_path / "b.dcm"), pydicom.dcmread(files / "MR_small.dcm")
    assert again.file_meta.TransferSyntaxUID.is_little_endian
    assert np.array_equal(again.pixel_array, usual.pixel_array)
    assert again.RedPaletteColorLookupTableData == b"\2\1\4\3"
    assert (again.PixelSpacing, again.EchoTime) == (usual.PixelSpacing, usual.EchoTime)


@pytest.mark.parametrize(
    "keyword", ["DerivationAlgorithmSequence", "ContributingEquipmentSequence"]
)
def test_a_dicom_file_with_a_text_for_a_sequence_is_read_and_marked(tmp_path, keyword):
    pydicom = pytest.importorskip("pydicom")
    dicom(tmp_path / "a.dcm")
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    dataset.pop(keyword, None)
    dataset.add_new(pydicom.datadict.tag_for_keyword(keyword), "LO", "foo")
    dataset.save_as(tmp_path / "a.dcm")
    assert read_mark(tmp_path / "a.dcm").record == {}
    write_rasters(tmp_path / "b.dcm", rasters(tmp_path / "a.dcm"), mark=RESTORED)
    assert read_mark(tmp_path / "b.dcm").record == SETTINGS


def test_dicom_keeps_a_long_derivation_and_the_equipment_of_others(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    dicom(tmp_path / "a.dcm")
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    dataset.DerivationDescription = "x" * 1000
    dataset.ContributingEquipmentSequence[0].Manufacturer = "Cascade"
    dataset.save_as(tmp_path / "a.dcm")
    write_rasters(tmp_path / "b.dcm", rasters(tmp_path / "a.dcm"), mark=RESTORED)
    again = pydicom.dcmread(tmp_path / "b.dcm")
    assert again.DerivationDescription == "x" * 1000
    assert [each.ContributionDescription for each in again.ContributingEquipmentSequence] == [
        "moved",
        NEWSCODES + TYPE,
    ]


def test_a_record_that_is_too_long_for_dicom_is_refused(tmp_path):
    dicom(tmp_path / "a.dcm")
    mark = replace(RESTORED, settings={**SETTINGS, "note": "x" * 11_000})
    with pytest.raises(OutputError, match=r"its record has 11,\d+ characters, and DICOM holds"):
        write_rasters(tmp_path / "b.dcm", rasters(tmp_path / "a.dcm"), mark=mark)
    assert not (tmp_path / "b.dcm").exists()


def test_nifti_has_a_comment_beside_those_of_others(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    nifti(tmp_path / "a.nii")
    write_rasters(tmp_path / "b.nii", rasters(tmp_path / "a.nii"), 3, mark=RESTORED)
    header = nibabel.load(tmp_path / "b.nii").header
    assert header["descrip"].item() == b"scanner 5"
    other, ours = (each.get_content() for each in header.extensions)
    assert b"a comment of a scanner" in bytes(other)
    assert json.loads(ours)["DigitalSourceType"] == NEWSCODES + TYPE
    long = replace(RESTORED, settings={**SETTINGS, "model": "m" * 90})
    write_rasters(tmp_path / "c.nii", rasters(tmp_path / "a.nii"), 3, mark=long)
    assert read_mark(tmp_path / "c.nii").record["model"] == "m" * 90


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("version", [1, 2])
def test_both_versions_of_nifti_hold_it_in_both_orders_of_bytes(tmp_path, version, order):
    nibabel = pytest.importorskip("nibabel")
    kind = {1: nibabel.Nifti1Image, 2: nibabel.Nifti2Image}[version]
    header = kind.header_class(endianness=order)
    header.set_data_dtype(np.dtype(np.int16).newbyteorder(order))
    stored = values(8, 12, 3, dtype="int16")
    nibabel.save(kind(stored, np.eye(4), header=header), tmp_path / "a.nii.gz")
    write_rasters(tmp_path / "b.nii.gz", rasters(tmp_path / "a.nii.gz"), 3, mark=RESTORED)
    assert read_mark(tmp_path / "b.nii.gz").record == SETTINGS
    again = nibabel.load(tmp_path / "b.nii.gz")
    assert again.header["descrip"].item().decode() == f"{TYPE}: Cascade scans-? 1.2"
    assert isinstance(again, kind)
    assert np.array_equal(np.asarray(again.dataobj), stored)


def test_numpy_reads_the_text_beside_the_array(tmp_path):
    write_rasters(tmp_path / "a.npz", [Raster(values=values(2, 8, 8))], mark=RESTORED)
    with np.load(tmp_path / "a.npz") as arrays:
        assert sorted(arrays) == ["cascade", "image"]
        assert json.loads(str(arrays["cascade"]))["cascade"] == SETTINGS
    write_rasters(tmp_path / "a.npy", [Raster(values=values(2, 8, 8))], mark=RESTORED)
    assert np.array_equal(np.load(tmp_path / "a.npy"), values(2, 8, 8))
    assert read_mark(tmp_path / "a.npy").record == {}


def test_an_array_of_objects_beside_the_image_is_no_mark(tmp_path):
    others = np.array([{"seed": 1}], dtype=object)
    np.savez(tmp_path / "a.npz", image=values(2, 8, 12), cascade=others)
    assert read_mark(tmp_path / "a.npz").record == {}
    (raster,) = rasters(tmp_path / "a.npz")
    assert np.array_equal(raster.values, values(2, 8, 12))


def test_a_packed_header_of_any_length_takes_little_memory(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    nifti(tmp_path / "a.nii")
    with gzip.open(tmp_path / "a.nii.gz", "wb", compresslevel=1) as file:
        header = nibabel.load(tmp_path / "a.nii").header.copy()
        header.extensions.clear()
        header["vox_offset"] = 2**27 + 352
        file.write(header.binaryblock + b"\1\0\0\0" + struct.pack("<ii", 2**27, 6))
        for _ in range(127):
            file.write(bytes(2**20))
    tracemalloc.start()
    assert read_mark(tmp_path / "a.nii.gz").record == {}
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**26


def test_bands_as_png_are_marked_as_a_picture(tmp_path):
    raster = Raster(values=values(1, 8, 8))
    write_rasters(tmp_path / "a.png", [raster], mark=GENERATED)
    read = read_mark(tmp_path / "a.png")
    assert read.is_generated
    assert read.record["seed"] == 4
    assert np.array_equal(read_raster(tmp_path / "a.png").values, raster.values)


# ---- what is no mark ----------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"cascade": 5}', '{"DigitalSourceType": "x"}'])
def test_other_texts_hold_no_mark(text):
    assert read_text(text).record == {}
    assert not read_text(text).mark


@pytest.mark.parametrize("name", ["a.dcm", "a.nii.gz", "a.npz"])
def test_a_damaged_file_is_one_error(name, tmp_path):
    MAKERS[name](tmp_path / name)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[:140])
    with pytest.raises(DataError, match=name):
        read_mark(tmp_path / name)
