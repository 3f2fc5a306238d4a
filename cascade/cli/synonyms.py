"""Options that people know from other programs, and what they are called or replaced by here.

They are used in messages only, so that each option has one name.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LIKENESS = 0.7  # of two names without their dashes; at difflib's 0.6, "jobs" is like "join"
SYNONYMS: dict[str, tuple[str, ...]] = {
    "--batch": ("--batch-size",),
    "--category": ("--class",),
    "--cfg": ("--guidance",),
    "--cfg-scale": ("--guidance",),
    "--caption": ("--prompt",),
    "--checkpoint": ("--model",),
    "--count": ("--num-images", "-n"),
    "--cuda": ("--device",),
    "--data-dir": ("--data",),
    "--dataset": ("--data",),
    "--dest": ("--out",),
    "--dir": ("--out",),
    "--ext": ("--format",),
    "--factor": ("--scale",),
    "--force": ("--overwrite",),
    "--from-file": ("--prompts",),
    "--gpu": ("--device",),
    "--guidance-scale": ("--guidance",),
    "--image-size": ("--size",),
    "--jobs": ("--workers",),
    "--label": ("--class",),
    "--labels": ("--class",),
    "--limit": ("--num-images",),
    "--model-path": ("--model",),
    "--neg-prompt": ("--negative",),
    "--negative-prompt": ("--negative",),
    "--n": ("--num-images", "-n"),
    "--nproc": ("--workers",),
    "--num": ("--num-images", "-n"),
    "--num-images": ("-n",),
    "--num-inference-steps": ("--steps",),
    "--num-samples": ("--num-images", "-n"),
    "--num-steps": ("--steps",),
    "--num-workers": ("--workers",),
    "--out-dir": ("--out",),
    "--outdir": ("--out",),
    "--output": ("--out",),
    "--output-dir": ("--out",),
    "--output-folder": ("--out",),
    "--outscale": ("--scale",),
    "--pipeline": ("--model",),
    "--processes": ("--workers",),
    "--prompt-file": ("--prompts",),
    "--recolor": ("--recolour",),
    "--replace": ("--overwrite",),
    "--resolution": ("--size",),
    "--samples": ("--num-images", "-n"),
    "--save": ("--out",),
    "--scheduler": ("--sampler",),
    "--seeds": ("--seed",),
    "--strip": ("--no-metadata",),
    "--text": ("--prompt",),
    "--threads": ("--workers",),
    "--tile-size": ("--tile",),
    "--upscale": ("--scale",),
    "--variants": ("-n",),
    "--weights": ("--model",),
}
RESUMING = "Repeat the same command: it continues where it stopped."
RESULT_SIZE = "The size of results is given as a factor of the input's: --scale."
ADVICE: dict[str, tuple[str, str]] = {  # for commands that have the first of the two
    "--continue": ("--join", RESUMING),
    "--height": ("--scale", RESULT_SIZE),
    "--limit": ("--join", "Name the images, or a part of them such as 'photos/a*.jpg'."),
    "--recursive": ("--join", "Folders are searched with all folders in them."),
    "--resume": ("--join", RESUMING),
    "--skip-existing": ("--join", RESUMING),
    "--width": ("--scale", RESULT_SIZE),
}


def synonyms_of(option: str, own: Iterable[str]) -> list[str]:
    """Find what a command calls an option that it does not know.

    Args:
        option: what the user typed, such as `--output`.
        own: the options of the command.

    Returns:
        Those of its options that mean the same.
    """
    names = SYNONYMS.get(option.replace("_", "-"), ())
    dashed = option.replace("_", "-")
    own = set(own)
    return [name for name in (dashed, *names) if name in own and name != option]


def advice_on(option: str, own: Iterable[str]) -> str:
    """Say what to do in place of an option, where no option of a command means the same.

    Args:
        option: what the user typed, such as `--resume`.
        own: the options of the command.

    Returns:
        A sentence; empty if there is nothing to say.
    """
    mark, advice = ADVICE.get(option.replace("_", "-"), ("", ""))
    return advice if mark in own else ""


def names_like(option: str, own: Iterable[str]) -> list[str]:
    """Find the options of a command that are spelt like one that it does not have.

    Args:
        option: what the user typed, such as `--stpes`.
        own: the options of the command.
    """
    names = {name.removeprefix("--"): name for name in own if name.startswith("--")}
    word = option.removeprefix("--").replace("_", "-")
    return [names[each] for each in difflib.get_close_matches(word, names, cutoff=LIKENESS)]
