"""Reads the commands and snippets of a page, and makes them small enough for a test."""

from __future__ import annotations

import ast
import glob
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

FENCE = re.compile(r"^ *```(\w+)\n(.*?)^ *```", flags=re.MULTILINE | re.DOTALL)
LAUNCHER = re.compile(  # a command runs as one process
    r"^(?:\w+=\S+ )*(?:accelerate launch|torchrun)\b.*? -m cascade\.cli "
)
DRAW = ("generate", "upscale", "colourise", "restore", "edit")
TRAIN = (  # seconds instead of hours
    "train.images=4",
    "train.batch_size=2",
    "train.warmup_images=2",
    "train.checkpoint_every_images=4",
    "train.sample_every_images=0",
    "train.validate_every_images=4",
    "train.validate_count=2",
    "train.snapshot_every_images=2",
    "train.compile=false",
    "train.trackers=[]",
)
KINDS = "data.only.class=[cat-face,heart,face-smiling]"  # those of the shards
SMALL = {  # the same factors at a fraction of the size
    "emoji-64-text": ("space.size_px=16", KINDS),
    "emoji-64-unclip": ("space.size_px=16", KINDS),
    "emoji-64-to-256": (
        "space.size_px=64",
        "condition.low_resolution.size_px=16",
        "data.crop_px=32",
    ),
    "emoji-256-to-1024": (
        "space.size_px=256",
        "condition.low_resolution.size_px=64",
        "data.crop_px=32",
    ),
    "emoji-vae": ("space.size_px=64", "data.crop_px=32"),
    "emoji-latent-256": ("space.size_px=8", KINDS),
    "photo-inpaint": ("space.size_px=32", "data.crop_px=32"),
    "super-resolution-bands": (
        "space.size_px=64",
        "condition.low_resolution.size_px=32",
        "data.crop_px=32",
    ),
    "restore-pairs": ("data.crop_px=32",),
    "super-resolution-x4": (
        "space.size_px=256",
        "condition.low_resolution.size_px=64",
        "data.crop_px=32",
    ),
    "photo-x4": ("data.crop_px=32",),
    "photo-x4-adapt": ("data.crop_px=32",),
}
MOST_PICTURES = {"generate": 1, "evaluate": 6, "sweep": 6}
IN_PYTHON = {"num_images": 1, "images": 4, "batch_size": 2}


class Part(NamedTuple):
    """A command, a statement or a recipe of a page.

    Attributes:
        language: `sh`, `python` or `yaml`.
        text: what the page says.
    """

    language: str
    text: str


def parts_of(page: Path) -> Iterator[Part]:
    """The `cascade` commands, the Python statements and the whole recipes of a page, in order."""
    for language, code in FENCE.findall(page.read_text(encoding="utf-8")):
        if language in ("sh", "console"):
            for line in code.replace("\\\n", " ").splitlines():
                text = " ".join(line.strip().removeprefix("$ ").removeprefix("srun ").split())
                text = LAUNCHER.sub("cascade ", text)
                start = re.search(r"(?:^|&& )((?:cascade|docker|uvx?) .*)", text)
                if start is not None:
                    yield Part("sh", start[1])
        elif language in ("python", "py"):
            for node in ast.parse(code).body:
                yield Part("python", ast.get_source_segment(code, node) or "")
        elif language == "yaml" and code.startswith("kind: "):
            yield Part("yaml", code)


def arguments_of(command: str) -> tuple[list[str], Path | None]:
    """The arguments of a command as a shell passes them, and the file that takes its output."""
    words, target = [], None
    parts = iter(shlex.split(command, comments=True, posix=False))
    for word in parts:
        if word == "|":
            break
        if word == ">":
            target = Path(next(parts))
        elif word[0] == "'":
            words.append(word[1:-1])
        else:
            words += expanded(word)
    return words[1:], target


def expanded(word: str) -> list[str]:
    """A word outside of single quotes, after the shell has filled in variables and patterns."""
    text = os.path.expandvars(word.strip('"'))
    text = re.sub(r"='(.*)'$", r"=\1", text)
    return sorted(glob.glob(text)) or [text] if word[0] != '"' else [text]


def reduced(arguments: list[str]) -> list[str]:
    """A command with fewer pictures and steps, and a smaller stage to train."""
    verb, *words = arguments
    for place, word in enumerate(words[:-1]):
        if word == "-n":
            words[place + 1] = str(min(int(words[place + 1]), MOST_PICTURES.get(verb, 2)))
        elif word == "--steps" and verb in DRAW:
            words[place + 1] = re.sub(r"\d+", "1", words[place + 1])
    if verb in DRAW and "--steps" not in words and "--join" not in words:
        words += ["--steps", "1"]
    if verb in MOST_PICTURES and "-n" not in words:
        words += ["-n", str(MOST_PICTURES[verb])]
    if verb == "validate":
        words += ["train.batch_size=2"]
    if verb in ("train", "distil"):
        keys = {word.partition("=")[0] for word in words if "=" in word}
        words += TRAIN
        if any(".generated." in key for key in keys):
            words += ["condition.low_resolution.generated.images=2"]
        words += [each for each in SMALL.get(words[0], ()) if each.partition("=")[0] not in keys]
    return [verb, *words]


class Reduced(ast.NodeTransformer):
    """Calls with fewer steps and pictures."""

    def visit_keyword(self, node: ast.keyword) -> ast.keyword:
        self.generic_visit(node)
        if node.arg == "steps":
            set_to_one(node.value)
        elif node.arg in IN_PYTHON and isinstance(node.value, ast.Constant):
            node.value.value = IN_PYTHON[node.arg]
        return node

    def visit_Call(self, node: ast.Call) -> ast.Call:
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id == "TrainingSettings":
            names = {each.arg for each in node.keywords}
            for name, value in {"sample_every_images": 0, "batch_size": 2}.items():
                if name not in names:
                    node.keywords.append(ast.keyword(name, ast.Constant(value)))
        return node

    def visit_Dict(self, node: ast.Dict) -> ast.Dict:
        self.generic_visit(node)
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant) and key.value == "steps":
                set_to_one(value)
        return node


def set_to_one(numbers: ast.expr) -> None:
    """Replace all whole numbers of an expression by 1."""
    for each in ast.walk(numbers):
        if isinstance(each, ast.Constant) and isinstance(each.value, int):
            each.value = 1


def reduced_statement(statement: str) -> ast.Module:
    """A Python statement with fewer steps and pictures."""
    return ast.fix_missing_locations(Reduced().visit(ast.parse(statement)))
