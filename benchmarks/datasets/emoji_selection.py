"""Which emoji are in the data set, and why others are not; see emoji.py.

All groups of the OpenMoji table are in the default build but `flags` (260 country flags, each with
its own small coat of arms), `component` (swatches of skin and hair) and `extras-*` (pictures that
OpenMoji alone draws, in one style).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

DEFAULT_GROUPS = (
    "smileys-emotion",
    "people-body",
    "animals-nature",
    "food-drink",
    "travel-places",
    "activities",
    "objects",
    "symbols",
)

PRESENTATION_MARK = "fe0f"
JOINER = "200d"
FACING_RIGHT = "27a1"
GENDERS = frozenset({"2640", "2642"})  # female and male sign
PERSON, MAN, WOMAN = "1f9d1", "1f468", "1f469"
SKIN_TONES = frozenset({"1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff"})

LEFT_OUT_SUBGROUPS = {
    "family": "several small people, told apart by hair and clothes of a few pixels",
    "keycap": "a digit or a sign in a box: text",
    "alphanum": "letters in a box: text",
    "av-symbol": "shuffle, repeat, fast forward: the same blue box with another small glyph",
    "zodiac": "thirteen glyphs in the same purple box: text, and near duplicates",
}
CLOCK_FACES = frozenset(f"{code:x}" for code in range(0x1F550, 0x1F568))
LEFT_OUT_CODES = {
    **dict.fromkeys(sorted(CLOCK_FACES), "clock faces differ by the hands alone"),
    **dict.fromkeys(("1f519", "1f51a", "1f51b", "1f51c", "1f51d"), "BACK, END, …: text"),
    **dict.fromkeys(("00a9", "00ae", "2122"), "copyright, registered, trade mark: text"),
    **dict.fromkeys(("1f3e7", "1f6be", "1f51e", "1f4b9"), "ATM, WC, 18 and yen: text"),
    **dict.fromkeys(("25fc", "25fb", "25fe", "25fd", "25aa", "25ab"), "the large squares, smaller"),
    **dict.fromkeys(("1f538", "1f539"), "the large diamonds, smaller"),
}


@dataclass(frozen=True)
class Emoji:
    """One row of the OpenMoji table.

    Attributes:
        code: code points in hex joined by `-`, without the presentation mark.
        caption: the CLDR short name, with straight quotation marks.
        subgroup: the class, such as `food-fruit`.
        group: the group, such as `food-drink`.
        keywords: OpenMoji's own keywords.
    """

    code: str
    caption: str
    subgroup: str
    group: str
    keywords: tuple[str, ...] = ()


def join_code(hexcode: str) -> str:
    """The code by which packages are joined: lower case, without the presentation mark."""
    return "-".join(part for part in hexcode.lower().split("-") if part != PRESENTATION_MARK)


def base_code(code: str) -> str:
    """The code without skin tones, so that a variant shares its base's split."""
    return "-".join(part for part in join_code(code).split("-") if part not in SKIN_TONES)


def neutral_code(code: str) -> str:
    """The code of the same emoji with a person in place of a man or a woman, facing left."""
    parts = code.split("-")
    if len(parts) > 1 and parts[0] in (MAN, WOMAN):
        parts[0] = PERSON
    kept: list[str] = []
    for part in parts:
        if part in GENDERS or part == FACING_RIGHT:
            kept = kept[:-1]  # the joiner before it
        else:
            kept.append(part)
    return "-".join(kept)


def reason_to_leave_out(emoji: Emoji, codes: frozenset[str]) -> str | None:
    """Why an emoji is left out of the data set, or None if it is in.

    Args:
        emoji: one row of the table.
        codes: the codes of all rows, by which a gender variant finds its neutral person.
    """
    if emoji.caption.startswith("family"):  # some are in `person-symbol`
        return LEFT_OUT_SUBGROUPS["family"]
    if emoji.subgroup in LEFT_OUT_SUBGROUPS:
        return LEFT_OUT_SUBGROUPS[emoji.subgroup]
    if emoji.code in LEFT_OUT_CODES:
        return LEFT_OUT_CODES[emoji.code]
    neutral = neutral_code(emoji.code)
    if neutral != emoji.code and neutral in codes:
        return "a man, a woman or a mirror image of an emoji that is in"
    return None


def select(emojis: Sequence[Emoji]) -> list[Emoji]:
    """The emoji that a small model can learn, in the order of the table."""
    codes = frozenset(emoji.code for emoji in emojis)
    return [emoji for emoji in emojis if reason_to_leave_out(emoji, codes) is None]
