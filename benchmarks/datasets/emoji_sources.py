"""The drawing styles of the emoji, and where their pictures and words come from; see emoji.py."""

from __future__ import annotations

import tarfile
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from emoji_captions import keyword_table, shortcode_table
from emoji_selection import join_code
from npm_packages import Package, fetch, read_json, read_members
from shards import DatasetError

OPENMOJI = Package(
    "openmoji",
    "17.0.0",
    "CC-BY-SA-4.0 (only its table is used, unless the style openmoji is asked for)",
    "55ee7d13485dec86e9f38c1f3a645a13382d33ff97c0cd845ee824b0aef45e68",
)
EMOJIBASE = Package(
    "emojibase-data",
    "17.0.0",
    "MIT",
    "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
)
FLUENT_3D = Package(
    "@lobehub/fluent-emoji-3d",
    "1.1.0",
    "MIT",
    "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
)
FLUENT = Package(
    "@iconify-json/fluent-emoji",
    "1.2.7",
    "MIT",
    "8044210dbf11e016d4de85f15d01a243423bd832457e7e2491df1b751c0e272b",
)
FLUENT_FLAT = Package(
    "@iconify-json/fluent-emoji-flat",
    "1.2.6",
    "MIT",
    "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
)
NOTO = Package(
    "@iconify-json/noto",
    "1.2.9",
    "Apache-2.0",
    "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
)
TWEMOJI = Package(
    "@iconify-json/twemoji",
    "1.2.5",
    "CC-BY-4.0",
    "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7",
)
EMOJIONE = Package(
    "@iconify-json/emojione",
    "1.2.3",
    "CC-BY-4.0",
    "26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e",
)
NOTO_V1 = Package(
    "@iconify-json/noto-v1",
    "1.2.5",
    "Apache-2.0",
    "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37",
)


@dataclass(frozen=True)
class Style:
    """Where a style's pictures are, and which package's `chars.json` maps codes to their names."""

    pictures: Package
    names: Package | None  # None: files that are named by code
    vector: bool = True

    def packages(self) -> set[Package]:
        """The packages that this style reads."""
        return {self.pictures} | ({self.names} if self.names else set())


STYLES = {
    "fluent-3d": Style(FLUENT_3D, None, vector=False),
    # fluent-emoji ships an empty chars.json; its icons have the same names as fluent-emoji-flat's.
    "fluent": Style(FLUENT, FLUENT_FLAT),
    "noto": Style(NOTO, NOTO),
    "twemoji": Style(TWEMOJI, TWEMOJI),
    "fluent-flat": Style(FLUENT_FLAT, FLUENT_FLAT),
    "openmoji": Style(OPENMOJI, None),
    # Both ship an empty chars.json; they use noto's names.
    "emojione": Style(EMOJIONE, NOTO),
    "noto-v1": Style(NOTO_V1, NOTO),
}
SHARE_ALIKE_STYLES = ("openmoji",)
JUDGE_STYLES = ("emojione", "noto-v1")  # no generator is trained on them; see alignment_tower.py
DEFAULT_STYLES = tuple(s for s in STYLES if s not in (*SHARE_ALIKE_STYLES, *JUDGE_STYLES))

# Two umbrellas on which cairo 1.16 ends in CAIRO_STATUS_NO_MEMORY.
UNDRAWABLE = frozenset({("fluent", "2602"), ("fluent", "2614")})


def svg_document(icons: Mapping, name: str) -> bytes:
    """A square SVG document of one icon of an Iconify set, centred if the icon is not square."""
    icon = icons["icons"].get(name)
    if icon is None:
        raise DatasetError(f"{icons['prefix']}: no icon {name!r}; is the name an alias?")
    width = icon.get("width", icons["width"])
    height = icon.get("height", icons["height"])
    side = max(width, height)
    box = f"{(width - side) / 2:g} {(height - side) / 2:g} {side:g} {side:g}"
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{box}">{icon["body"]}</svg>'
    ).encode()


def svg_sources(icons: Mapping, chars: Mapping[str, str], codes: Iterable[str]) -> dict[str, bytes]:
    """The SVG documents of the codes that an Iconify set draws."""
    names = {join_code(code): name for code, name in chars.items()}
    return {code: svg_document(icons, names[code]) for code in codes if code in names}


def own_names(icons: Mapping, chars: Mapping[str, str]) -> dict[str, str]:
    """The names of another set that an Iconify set has too, its aliases resolved."""
    aliases = {name: alias["parent"] for name, alias in icons.get("aliases", {}).items()}
    names = {code: aliases.get(name, name) for code, name in chars.items()}
    return {code: name for code, name in names.items() if name in icons["icons"]}


def file_sources(tarball: Path, folder: str, codes: Collection[str]) -> dict[str, bytes]:
    """The files of the codes in one folder of a tarball, by file name."""
    with tarfile.open(tarball, "r:gz") as archive:
        files = sorted(name for name in archive.getnames() if name.startswith(folder))
    file_of = {join_code(Path(name).stem): name for name in files}
    wanted = {file_of[code]: code for code in codes if code in file_of}
    return {wanted[name]: data for name, data in read_members(tarball, wanted).items()}


def read_sources(name: str, codes: Collection[str], cache: Path) -> dict[str, bytes]:
    """The SVG documents or WebP files of one style by code, without those that it lacks."""
    style = STYLES[name]
    pictures = fetch(style.pictures, cache)
    if style.names is None:
        folder = "package/color/svg/" if style.vector else "package/assets/"
        return file_sources(pictures, folder, codes)
    chars = read_json(fetch(style.names, cache), "package/chars.json")
    icons = read_json(pictures, "package/icons.json")
    return svg_sources(icons, own_names(icons, chars) if name in JUDGE_STYLES else chars, codes)


def read_words(cache: Path) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
    """Keywords and shortcodes by code, from emojibase-data."""
    tarball = fetch(EMOJIBASE, cache)
    keywords = keyword_table(read_json(tarball, "package/en/data.json"))
    shortcodes = shortcode_table(read_json(tarball, "package/en/shortcodes/emojibase.json"))
    return (
        {join_code(hexcode): words for hexcode, words in keywords.items()},
        {join_code(hexcode): names for hexcode, names in shortcodes.items()},
    )
