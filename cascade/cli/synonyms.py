"""Options that people know from other programs, and what they are called here.

They are used in messages only, so that each option has one name.
"""

from __future__ import annotations

from collections.abc import Iterable

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
    "--label": ("--class",),
    "--labels": ("--class",),
    "--model-path": ("--model",),
    "--neg-prompt": ("--negative",),
    "--negative-prompt": ("--negative",),
    "--n": ("--num-images", "-n"),
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
    "--tile-size": ("--tile",),
    "--upscale": ("--scale",),
    "--variants": ("-n",),
    "--weights": ("--model",),
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
