"""Several phrasings of what an emoji shows, with its drawing style as a word; see emoji.py.

The phrasings are decided by the emoji, its style and its keywords alone, so a rebuild repeats them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping

STYLE_WORDS = {
    "fluent-3d": "fluent 3d",
    "fluent": "fluent",
    "noto": "noto",
    "twemoji": "twemoji",
    "fluent-flat": "fluent flat",
    "openmoji": "openmoji",
    "emojione": "emojione",
    "noto-v1": "noto v1",
}

# Proper names, substances, sports, and what is no noun at all.
NAMES_WITHOUT_ARTICLE = re.compile(
    r"^(rolling on|dashing away|anger symbol|hundred points|people |camping|cooking|bowling|tennis|"
    r"martial arts|field hockey|ice hockey|lacrosse|ping pong|badminton|horse racing|mount fuji|"
    r"breast-feeding|statue of|performing arts|santa|mrs\.|mx |star-struck|foggy|fog$|fire$|salt$|"
    r"butter$|ice$|bread$|bacon$|garlic|broccoli|spaghetti|sushi|sake$|popcorn|canned food|soap$|"
    r"wood$|luggage|yarn|thread$|meat on|money with|construction$|building constr|love-you|dna|om$|"
    r"cooked rice|curry rice|pouring liquid|flower playing|mahjong|map of|christmas|two |clinking|"
    r"zzz|locked|unlocked|prohibited|no |potable|non-potable|palms up|nail polish|multiply|divide|"
    r"high voltage|dizzy|children|baggage|left luggage|customs|tokyo|radioactive|clapping|raising)",
    re.IGNORECASE,
)
AN = re.compile(r"(?!uni|eu|ewe|one)[aeiou]|hourglass|x-ray", re.IGNORECASE)
PLURAL = re.compile(r"(?<![suo])s$")
PREPOSITIONS = "with|without|on|in|of|at|for|behind|over|showing|pointing|to"
HEAD = re.compile(rf"^(.*?)(?: (?:{PREPOSITIONS}) .*)?$")
MIN_KEYWORD_LETTERS = 3


def straight(text: str) -> str:
    """The text with straight quotation marks, as people type them."""
    return text.translate({0x2018: "'", 0x2019: "'", 0x201C: '"', 0x201D: '"'}).strip()


def with_article(name: str) -> str:
    """The name after `a` or `an`, unless it is a plural, a proper name or a substance."""
    head = HEAD.match(name).group(1)
    if NAMES_WITHOUT_ARTICLE.match(name) or PLURAL.search(head):
        return name
    return f"{'an' if AN.match(name) else 'a'} {name}"


def words_of(text: str) -> frozenset[str]:
    """The words of a text, in lower case."""
    return frozenset(re.findall(r"[^\W_]+", text.lower()))


def clean_keywords(name: str, keywords: Iterable[str]) -> list[str]:
    """Sorted keywords that are words, without the name itself."""
    lower = {straight(keyword).lower() for keyword in keywords}
    kept = (k for k in lower if len(k) >= MIN_KEYWORD_LETTERS and k != name.lower())
    return sorted(k for k in kept if not any(char.isdigit() for char in k))


def other_name(
    name: str, shortcodes: Iterable[str], names: Collection[frozenset[str]]
) -> str | None:
    """The first shortcode, as words, that is not the name nor that of another emoji.

    Args:
        name: the CLDR short name.
        shortcodes: names in chat programs, words joined by `_`.
        names: the words of each emoji's CLDR short name.
    """
    for shortcode in shortcodes:
        text = shortcode.replace("_", " ")
        is_word = len(text) >= MIN_KEYWORD_LETTERS and not any(char.isdigit() for char in text)
        if is_word and words_of(text) != words_of(name) and words_of(text) not in names:
            return text
    return None


def by_hash(salt: str, words: Iterable[str]) -> list[str]:
    """The words in an order that depends on them and the salt alone."""
    return sorted(words, key=lambda word: hashlib.sha256(f"{salt}:{word}".encode()).digest())


def phrasings(
    name: str, style: str, keywords: Iterable[str], other: str | None, salt: str
) -> list[str]:
    """Captions of one picture, the name with its style first.

    Args:
        name: the CLDR short name.
        style: a key of STYLE_WORDS.
        keywords: what people search the emoji by; some are in the name.
        other: another name, see `other_name`.
        salt: decides which keywords are taken.

    Returns:
        5 to 8 captions. One or two are without the style; at most two are made of keywords.
    """
    word = STYLE_WORDS[style]
    captions = [
        f"{name}, {word}",  # evaluation takes the first one as the prompt, which needs the style
        name,
        f"{with_article(word)} emoji of {with_article(name)}",
        f"{word} style: {name}",
        f"{with_article(name)} in {word} style",
    ]
    if other is not None:
        captions.append(f"{other}, {word}")
    cleaned = clean_keywords(name, keywords)
    in_name = by_hash(salt, (k for k in cleaned if words_of(k) <= words_of(name)))
    others = by_hash(salt, (k for k in cleaned if not words_of(k) <= words_of(name)))
    if len(others) >= 2:
        subject = in_name[0] if in_name else name
        captions.append(", ".join([*by_hash(salt, [subject, *others[:2]]), word]))
        captions.append(", ".join([name, *others[-2:]]))
    return list(dict.fromkeys(captions))


def keyword_table(entries: Iterable[Mapping]) -> dict[str, tuple[str, ...]]:
    """Keywords by hexcode, from emojibase-data's `data.json`."""
    return {entry["hexcode"]: tuple(entry.get("tags", ())) for entry in entries}


def shortcode_table(entries: Mapping[str, str | list[str]]) -> dict[str, tuple[str, ...]]:
    """Shortcodes by hexcode, from one of emojibase-data's files."""
    return {
        hexcode: (names,) if isinstance(names, str) else tuple(names)
        for hexcode, names in entries.items()
    }
