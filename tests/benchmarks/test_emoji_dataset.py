"""Facts about benchmarks/datasets/emoji.py: joining, the split, the shards, the pinned sums."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import sys
import tarfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "datasets" / "emoji.py"
sys.path.insert(0, str(SCRIPT.parent))
COLUMNS = "hexcode,group,subgroups,annotation,skintone,skintone_base_hexcode,openmoji_tags"


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("emoji_dataset", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


emoji = load_script()
import emoji_captions as captions  # noqa: E402
import emoji_selection as selection  # noqa: E402
import emoji_sources as sources  # noqa: E402
import npm_packages as npm  # noqa: E402

PX = emoji.RASTER_PX


def table(*rows: str) -> str:
    return "\n".join([COLUMNS, *rows])


def picture(code: str, style: str = "noto", source: bytes = b""):
    return emoji.Picture(emoji.Emoji(code, "a caption", "heart", "smileys-emotion"), style, source)


def write_tgz(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def png_file(colour: str, compress_level: int = 6) -> bytes:
    image = pytest.importorskip("PIL.Image").new("RGB", (8, 8), colour)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=compress_level)
    return buffer.getvalue()


# Joining


@pytest.mark.parametrize(
    ("hexcode", "code"),
    [
        ("1F600", "1f600"),
        ("2764-FE0F", "2764"),
        ("2764-FE0F-200D-1F525", "2764-200d-1f525"),
        ("0023-FE0F-20E3", "0023-20e3"),
    ],
)
def test_join_code_drops_only_the_presentation_mark(hexcode, code):
    assert emoji.join_code(hexcode) == code


def test_table_keeps_bases_and_drops_variants_and_tones():
    text = table(
        "1F44B,people-body,hand-fingers-open,waving hand,,1F44B,",
        "1F44B-1F3FB,people-body,hand-fingers-open,waving hand: light skin tone,1,1F44B,",
        "1F3FB,component,skin-tone,light skin tone,,,",
        '2764-FE0F,smileys-emotion,heart,red heart,,,"love,romance"',
    )
    found = emoji.read_table(text, ("all",))
    assert [e.code for e in found] == ["1f44b", "2764"]
    heart = emoji.Emoji("2764", "red heart", "heart", "smileys-emotion", ("love", "romance"))
    assert emoji.read_table(text, ("smileys-emotion",)) == [heart]


def test_unknown_group_is_an_error_that_names_the_known_ones():
    with pytest.raises(emoji.DatasetError, match=r"'smileys'.*smileys-emotion"):
        emoji.read_table(table("2764,smileys-emotion,heart,red heart,,,"), ("smileys",))


def test_svg_sources_join_by_code_and_leave_out_what_the_set_lacks():
    icons = {
        "prefix": "tiny",
        "width": 32,
        "height": 32,
        "icons": {"red-heart": {"body": "<path/>"}, "pig": {"body": "<g/>", "height": 33}},
    }
    chars = {"2764-fe0f": "red-heart", "1f437": "pig"}
    documents = sources.svg_sources(icons, chars, ["2764", "1f437", "1f600"])
    assert documents.keys() == {"2764", "1f437"}
    assert b'viewBox="0 0 32 32"><path/></svg>' in documents["2764"]
    assert b'viewBox="-0.5 0 33 33"><g/></svg>' in documents["1f437"]  # square, icon in the middle


def test_chars_that_name_no_icon_are_an_error():
    icons = {"prefix": "tiny", "width": 32, "height": 32, "icons": {}}
    with pytest.raises(emoji.DatasetError, match="tiny: no icon 'heart'"):
        sources.svg_sources(icons, {"2764": "heart"}, ["2764"])


def test_file_sources_join_by_file_name_in_one_folder(tmp_path):
    members = {"package/assets/2764-fe0f.webp": b"heart", "package/black/2764.svg": b"outline"}
    write_tgz(tmp_path / "a.tgz", members)
    files = sources.file_sources(tmp_path / "a.tgz", "package/assets/", ["2764", "1f600"])
    assert files == {"2764": b"heart"}


# Selection


def row(code: str, caption: str = "a caption", subgroup: str = "person-role"):
    return emoji.Emoji(code, caption, subgroup, "people-body")


def test_gender_variants_and_mirror_images_of_a_neutral_person_are_left_out():
    kept = ["1f9d1-200d-1f3a8", "1f468", "1f469", "1f6b6", "1f57a"]
    variants = [
        "1f468-200d-1f3a8",  # man artist
        "1f6b6-200d-2640",  # woman walking
        "1f6b6-200d-2642-200d-27a1",  # man walking: facing right
    ]
    assert [e.code for e in selection.select([row(c) for c in kept + variants])] == kept


def test_gender_variant_without_a_neutral_person_stays():
    assert [e.code for e in selection.select([row("1f468-200d-1f3a8")])] == ["1f468-200d-1f3a8"]


def test_text_clock_faces_and_families_are_left_out():
    emojis = [
        row("1f170", "A button (blood type)", "alphanum"),
        row("0031-20e3", "keycap: 1", "keycap"),
        row("1f550", "one o'clock", "time"),
        row("231a", "watch", "time"),
        row("1f9d1-200d-1f9d2", "family: adult, child", "person-symbol"),
    ]
    assert [e.caption for e in selection.select(emojis)] == ["watch"]


# Captions


def test_phrasings_have_the_name_with_its_style_first_and_the_plain_name_next():
    tags = ("animal", "cat", "eyes", "love", "smile")
    assert captions.phrasings("cat with heart eyes", "noto", tags, "heart eyes cat", "1") == [
        "cat with heart eyes, noto",
        "cat with heart eyes",
        "a noto emoji of a cat with heart eyes",
        "noto style: cat with heart eyes",
        "a cat with heart eyes in noto style",
        "heart eyes cat, noto",
        "animal, love, cat, noto",
        "cat with heart eyes, love, smile",
    ]


def test_phrasings_do_not_depend_on_the_order_of_the_keywords_but_on_the_salt():
    tags = [f"tag{chr(letter)}" for letter in range(97, 117)]
    first = captions.phrasings("cat", "fluent", tags, None, "1f431 fluent")
    assert captions.phrasings("cat", "fluent", tags[::-1], None, "1f431 fluent") == first
    assert captions.phrasings("cat", "fluent", tags, None, "1f431 noto") != first


def test_every_style_has_a_word():
    assert captions.STYLE_WORDS.keys() == emoji.STYLES.keys()


@pytest.mark.parametrize(
    ("name", "phrase"),
    [
        ("red heart", "a red heart"),
        ("orange heart", "an orange heart"),
        ("unicorn", "a unicorn"),
        ("umbrella", "an umbrella"),
        ("octopus", "an octopus"),
        ("cherries", "cherries"),
        ("face with tears of joy", "a face with tears of joy"),
        ("Santa Claus", "Santa Claus"),
    ],
)
def test_article(name, phrase):
    assert captions.with_article(name) == phrase


def test_other_name_is_not_that_of_another_emoji():
    names = {captions.words_of("open book"), captions.words_of("book")}
    assert captions.other_name("open book", ["open_book", "book", "8book"], names) is None
    assert captions.other_name("open book", ["book", "read_a_book"], names) == "read a book"


def test_curly_quotation_marks_become_straight():
    assert captions.straight("woman\u2019s hat") == "woman's hat"


# Split


def test_split_is_the_recorded_one():
    # Another split would test published models on pictures that they were trained on.
    faces = [f"{code:x}" for code in range(0x1F600, 0x1F650)]
    animals = [f"{code:x}" for code in range(0x1F400, 0x1F450)]
    heldout = [code for code in faces if emoji.split_of(code, "noto") == "heldout"]
    validation = [code for code in animals if emoji.split_of(code, "noto") == "validation"]
    unseen = [code for code in faces[:32] if emoji.split_of(code, "twemoji") == "unseen"]
    assert heldout == ["1f609", "1f629", "1f642", "1f644"]
    assert validation == ["1f405", "1f409", "1f429"]
    assert unseen == ["1f607", "1f60b", "1f615", "1f61d"]


def test_splits_have_their_fractions():
    codes = [f"{code:x}" for code in range(20_000)]
    splits = Counter(emoji.split_of(code, "noto") for code in codes)
    assert splits["heldout"] / len(codes) == pytest.approx(emoji.HELDOUT_FRACTION, abs=0.005)
    assert splits["validation"] / len(codes) == pytest.approx(emoji.VALIDATION_FRACTION, abs=0.005)
    unseen = splits["unseen"] / (splits["unseen"] + splits["train"])
    assert unseen == pytest.approx(emoji.UNSEEN_FRACTION, abs=0.005)


def test_spelling_and_skin_tones_stay_on_the_side_of_their_base():
    for code in (f"{code:x}" for code in range(0x1F400, 0x1F600)):
        side = emoji.split_of(code, "noto")
        assert emoji.split_of(f"{code.upper()}-FE0F", "noto") == side
        assert all(emoji.split_of(f"{code}-{tone}", "noto") == side for tone in emoji.SKIN_TONES)


def test_shards_part_train_validation_and_heldout_by_code_and_unseen_by_one_style():
    codes = [f"{code:x}" for code in range(0x1F400, 0x1F500)]
    shards = emoji.plan_shards([picture(c, s) for s in emoji.DEFAULT_STYLES for c in codes], 512)
    sides: dict[str, list[str]] = {}
    for name, pictures in shards.items():
        for p in pictures:
            sides.setdefault(p.emoji.code, []).append(name.split("-")[0])
    assert sides.keys() == set(codes)
    kinds = {tuple(sorted(Counter(side).items())) for side in sides.values()}
    assert kinds == {
        (("train", 5),),
        (("validation", 5),),
        (("heldout", 5),),
        (("train", 4), ("unseen", 1)),
    }


def test_openmoji_has_no_unseen_pairs_and_changes_none():
    codes = [f"{code:x}" for code in range(0x1F400, 0x1F500)]
    assert "unseen" not in {emoji.split_of(code, "openmoji") for code in codes}


def test_shards_are_full_except_the_last_and_do_not_depend_on_the_order_given():
    pictures = [picture(f"{code:x}") for code in range(1500)]
    shards = emoji.plan_shards(pictures, 512)
    assert emoji.plan_shards(pictures[::-1], 512) == shards
    sizes = [len(s) for name, s in shards.items() if name.startswith("train")]
    assert sizes[:-1] == [512] * (len(sizes) - 1)
    assert sum(len(s) for s in shards.values()) == len(pictures)


# Shards


def test_label_is_the_documented_json():
    labelled = replace(
        picture("1f600", "fluent-3d"), captions=("a caption", "a caption, fluent 3d")
    )
    assert json.loads(labelled.label()) == {
        "caption": "a caption",
        "captions": ["a caption", "a caption, fluent 3d"],
        "class": "heart",
        "style": "fluent-3d",
        "code": "1F600",
        "group": "smileys-emotion",
    }


def test_tar_is_bit_identical_and_carries_no_time_or_owner(tmp_path):
    members = [("b.png", b"pixels"), ("a.json", b"{}")]
    emoji.write_tar(tmp_path / "first.tar", members)
    emoji.write_tar(tmp_path / "second.tar", members)
    assert (tmp_path / "first.tar").read_bytes() == (tmp_path / "second.tar").read_bytes()
    with tarfile.open(tmp_path / "first.tar") as archive:
        infos = archive.getmembers()
    assert [info.name for info in infos] == ["b.png", "a.json"]
    assert {(i.mtime, i.uid, i.gid, i.uname, i.gname) for i in infos} == {(0, 0, 0, "", "")}


def test_interrupted_tar_leaves_the_old_one_and_no_partial_file(tmp_path):
    def broken():
        yield "a.json", b"{}"
        raise RuntimeError("stopped")

    path = tmp_path / "train-000000.tar"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="stopped"):
        emoji.write_tar(path, broken())
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == [path.name]


def test_content_sha256_sees_pixels_names_and_json_but_not_compression(tmp_path):
    def digest(png: bytes, label: bytes = b"{}", key: str = "a") -> str:
        emoji.write_tar(tmp_path / "a.tar", [(f"{key}.png", png), (f"{key}.json", label)])
        return emoji.content_sha256(tmp_path / "a.tar")

    red = digest(png_file("#ff0000"))
    assert png_file("#ff0000", 0) != png_file("#ff0000", 9)
    assert digest(png_file("#ff0000", 0)) == digest(png_file("#ff0000", 9)) == red
    assert digest(png_file("#fe0000")) != red
    assert digest(png_file("#ff0000"), label=b'{"a": 1}') != red
    assert digest(png_file("#ff0000"), key="b") != red


def test_transparent_pixels_become_white_and_half_ones_are_mixed():
    image_module = pytest.importorskip("PIL.Image")
    image = image_module.new("RGBA", (PX, PX), (0, 0, 0, 0))
    image.putpixel((0, 0), (255, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 51))  # a fifth of black on white: 255 * 4/5
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    with image_module.open(io.BytesIO(emoji.on_white(buffer.getvalue(), PX))) as flat:
        assert flat.mode == "RGB"
        pixels = [flat.getpixel((x, 0)) for x in range(3)]
    assert pixels == [(255, 0, 0), (204, 204, 204), (255, 255, 255)]


def test_tall_picture_is_shrunk_into_the_middle_of_the_square():
    image_module = pytest.importorskip("PIL.Image")
    image = image_module.new("RGBA", (PX, 2 * PX), "red")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    with image_module.open(io.BytesIO(emoji.on_white(buffer.getvalue(), PX))) as flat:
        assert flat.size == (PX, PX)
        row = [flat.getpixel((x, 128)) for x in (0, 63, 64, 191, 192, 255)]
    white, red = (255, 255, 255), (255, 0, 0)
    assert row == [white, white, red, red, white, white]


def test_small_picture_is_refused_by_its_key():
    with pytest.raises(emoji.DatasetError, match=r"fluent-3d-1f600: cannot render.*8, 8"):
        emoji.render(picture("1f600", "fluent-3d", png_file("red")), PX)


def test_svg_renders_on_white_at_the_full_size():
    pytest.importorskip("cairosvg")
    icons = {
        "prefix": "tiny",
        "width": 2,
        "height": 2,
        "icons": {"dot": {"body": '<path fill="#00f" d="M0 0h1v1h-1z"/>'}},
    }
    dot = picture("1f600", source=sources.svg_document(icons, "dot"))
    for size_px in (PX, 2 * PX):
        png = emoji.render(dot, size_px)
        image = pytest.importorskip("PIL.Image").open(io.BytesIO(png))
        assert (image.size, image.mode) == ((size_px, size_px), "RGB")
        assert image.getpixel((size_px // 2 - 4, 10)) == (0, 0, 255)
        assert image.getpixel((size_px // 2 + 4, 10)) == (255, 255, 255)


# Pinned bytes


def test_tarball_with_another_sha256_is_refused_and_kept(tmp_path):
    path = tmp_path / sources.NOTO.tarball
    path.write_bytes(b"not the package")
    with pytest.raises(emoji.DatasetError, match=f"expected {sources.NOTO.sha256}"):
        npm.fetch(sources.NOTO, tmp_path)
    assert path.read_bytes() == b"not the package"


def test_missing_npm_is_an_error_that_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(emoji.DatasetError, match="npm is not on the PATH"):
        npm.fetch(sources.NOTO, tmp_path)


def test_tarball_names_are_those_of_npm_pack():
    assert sources.NOTO.tarball == "iconify-json-noto-1.2.9.tgz"
    assert emoji.OPENMOJI.tarball == "openmoji-17.0.0.tgz"


def test_read_members_takes_only_named_regular_files(tmp_path):
    path = tmp_path / "a.tgz"
    with tarfile.open(path, "w:gz") as archive:
        link = tarfile.TarInfo("package/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(link)
        for name in ("package/a.json", "../b.json"):
            info = tarfile.TarInfo(name)
            info.size = 2
            archive.addfile(info, io.BytesIO(b"{}"))
    wanted = {"package/link", "package/a.json", "package/none"}
    assert npm.read_members(path, wanted) == {"package/a.json": b"{}"}
    assert os.listdir(tmp_path) == ["a.tgz"]


def test_member_over_the_limit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(npm, "MEMBER_LIMIT_MIB", 1)
    write_tgz(tmp_path / "a.tgz", {"big": bytes(2**20 + 1)})
    with pytest.raises(emoji.DatasetError, match="big is over 1 MiB"):
        npm.read_members(tmp_path / "a.tgz", {"big"})


def test_check_accepts_the_recorded_shards_only(tmp_path):
    sums, out = tmp_path / "emoji.sha256", tmp_path / "out"
    out.mkdir()
    for name in ("train-000000.tar", "heldout-000000.tar"):
        emoji.write_tar(out / name, [("a.png", png_file("red")), ("a.json", b"{}")])
    emoji.write_manifest({"settings": emoji.Choice().settings()}, out / "manifest.json")
    emoji.record(out, sums)
    emoji.check(out, sums)
    emoji.write_tar(out / "train-000000.tar", [("a.png", png_file("blue")), ("a.json", b"{}")])
    (out / "heldout-000000.tar").rename(out / "heldout-000001.tar")
    expected = (
        "heldout-000000.tar is missing; heldout-000001.tar is not in emoji.sha256; "
        "train-000000.tar differs"
    )
    with pytest.raises(emoji.DatasetError, match=expected):
        emoji.check(out, sums)


def test_truncated_shard_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "train-000000.tar"
    emoji.write_tar(path, [("a.png", png_file("red")), ("b.json", b"{}")])
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(emoji.DatasetError, match=r"train-000000.tar: cannot read"):
        emoji.content_sha256(path)


def test_other_settings_are_not_recorded(tmp_path):
    settings = emoji.Choice(groups=("all",)).settings()
    emoji.write_manifest({"settings": settings}, tmp_path / "manifest.json")
    with pytest.raises(emoji.DatasetError, match="not built with the default settings"):
        emoji.record(tmp_path, tmp_path / "emoji.sha256")
    assert not (tmp_path / "emoji.sha256").exists()


@pytest.mark.parametrize("flags", [["--styles", "noto"], ["--groups", "all"], ["--cache", "x"]])
def test_check_refuses_flags_that_it_would_ignore(flags, capsys):
    with pytest.raises(SystemExit):
        emoji.parse_arguments(["--out", "x", "--check", *flags])
    assert "take no --cache" in capsys.readouterr().err


def test_unknown_style_is_an_error_that_names_the_known_ones(capsys):
    with pytest.raises(SystemExit):
        emoji.parse_arguments(["--out", "x", "--styles", "apple"])
    assert "unknown style 'apple'; expected some of fluent-3d" in capsys.readouterr().err


def test_raster_style_is_refused_above_its_size_and_left_out_of_the_defaults(capsys):
    with pytest.raises(SystemExit):
        emoji.parse_arguments(["--out", "x", "--size-px", "1024", "--styles", "noto,fluent-3d"])
    assert "fluent-3d is a raster of 256 px" in capsys.readouterr().err
    choice = emoji.choice_of(emoji.parse_arguments(["--out", "x", "--size-px", "1024"]))
    assert choice.styles == ("fluent", "noto", "twemoji", "fluent-flat")
    assert capsys.readouterr().out == "left out at 1024 px: fluent-3d, a raster of 256 px\n"
    assert choice.sums_path().name == "emoji-1024.sha256"


def test_openmoji_is_drawn_only_when_it_is_named():
    assert "openmoji" not in emoji.choice_of(emoji.parse_arguments(["--out", "x"])).styles
    named = emoji.parse_arguments(["--out", "x", "--styles", "openmoji,noto"])
    assert emoji.choice_of(named).styles == ("noto", "openmoji")


@pytest.mark.parametrize("text", ["0", "-1", "2.5", "4096", "big"])
def test_size_that_is_no_size_is_an_error(text, capsys):
    with pytest.raises(SystemExit):
        emoji.parse_arguments(["--out", "x", f"--size-px={text}"])
    assert f"expected 1 to 2048 px, got '{text}'" in capsys.readouterr().err


def test_check_at_a_size_without_sums_says_so(tmp_path):
    with pytest.raises(SystemExit, match="no sums are recorded for 512 px"):
        emoji.main(["--out", str(tmp_path), "--check", "--size-px", "512"])
