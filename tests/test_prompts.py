"""Prompts in calls of a pipeline: who gets which, guidance against others, what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cascade.conditioning.inputs import Inputs
from cascade.contract import Contract
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import ContractError
from cascade.pipeline import CascadePipeline
from cascade.sampling.tiles import Tiles
from cascade.stage import Run
from cascade.text import encoders
from cascade.text.transformers_encoder import TransformersEncoder

SAME = 2e-4  # another batch size may round the other way
CAT, DOG = "a red cat", "a blue dog"


def draw(pipeline: CascadePipeline, *arguments, **options) -> Tensor:
    options = {"output_type": "pt", "precision": "fp32"} | options
    return pipeline(*arguments, **options).images


def alike(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and bool((first - second).abs().max() < SAME)


@pytest.fixture
def base(drawing) -> CascadePipeline:
    """The base stage alone."""
    pipeline = CascadePipeline.from_stages({"base": drawing.stages["base"]})
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


# ---- who gets which prompt ----------------------------------------------------------------------


def test_a_text_is_for_all_images_and_a_list_is_for_one_each(drawing):
    together = drawing([CAT, DOG], seed=5, output_type="pt", precision="fp32")
    assert together.prompts == [CAT, DOG]
    assert together.seeds == [5, 6]
    apart = [draw(drawing, CAT, seed=5), draw(drawing, DOG, seed=6)]
    assert alike(together.images, torch.cat(apart))
    twice = drawing(prompt=CAT, num_images=2, seed=5, output_type="pt", precision="fp32")
    assert twice.prompts == [CAT, CAT]
    assert alike(twice.images[:1], apart[0])
    assert not alike(twice.images[1:], apart[1])


def test_an_empty_prompt_is_no_prompt(base):
    bare = base(seed=0, labels="cat,noto", output_type="pt")
    assert bare.prompts == [""]
    for prompt in ("", "  "):
        assert draw(base, prompt, seed=0, labels="cat,noto").equal(
            draw(base, seed=0, labels="cat,noto")
        )


def test_classes_are_drawn_only_without_a_prompt(drawing):
    assert set(drawing(seed=0).labels[0]) == {"animal", "style"}
    assert drawing(CAT, seed=0).labels == [{}]
    assert drawing("", seed=0).labels == [{}]
    assert drawing(CAT, seed=0, labels="noto").labels == [{"style": "noto"}]


def test_a_list_of_prompts_goes_with_as_many_images_to_start_from(drawing):
    image = torch.zeros(2, 3, 16, 16)
    both = draw(drawing, [CAT, DOG], image=image, seed=1)
    assert alike(both[1:], draw(drawing, DOG, image=image[1:], seed=2))
    assert not alike(both[1:], draw(drawing, CAT, image=image[1:], seed=2))


def test_prompts_may_also_stand_among_the_inputs(drawing):
    assert draw(drawing, seed=0, inputs={"prompt": [CAT]}).equal(draw(drawing, CAT, seed=0))
    with pytest.raises(ContractError, match="prompt is an argument of its own"):
        drawing(CAT, inputs={"prompt": [DOG]})


def test_a_text_is_encoded_once_for_all_stages_batches_and_steps(drawing, monkeypatch):
    encoders.encoder_of.cache_clear()
    encoded = []

    def spy(self, texts, *arguments, plain=TransformersEncoder.encode, **options):
        encoded.extend(texts)
        return plain(self, texts, *arguments, **options)

    monkeypatch.setattr(TransformersEncoder, "encode", spy)
    prompts = [CAT, DOG, CAT, "", CAT]
    drawing(prompts, negative_prompt="the house", guidance=2.0, batch_size=2, seed=0)
    assert sorted(text for text in encoded if text) == [DOG, CAT, "the house"]


# ---- guidance -----------------------------------------------------------------------------------


def test_guidance_0_draws_without_conditions_and_1_with_them(base):
    plain = draw(base, CAT, seed=0, guidance=1.0)
    assert draw(base, CAT, seed=0, labels="cat", guidance=0.0).equal(
        draw(base, "", seed=0, guidance=1.0)
    )
    assert not alike(plain, draw(base, CAT, seed=0, guidance=3.0))
    assert draw(base, CAT, seed=0).equal(plain)


def test_guidance_0_draws_the_negative_prompt(base):
    assert draw(base, CAT, negative_prompt=DOG, seed=0, guidance=0.0).equal(
        draw(base, DOG, seed=0, guidance=1.0)
    )


def test_an_empty_negative_prompt_is_none_and_a_list_has_one_for_each(base):
    options = {"num_images": 2, "seed": 0, "guidance": 3.0}
    plain = draw(base, CAT, **options)
    for nothing in ("", ["", ""], None):
        assert draw(base, CAT, negative_prompt=nothing, **options).equal(plain)
    one = draw(base, CAT, negative_prompt=["", DOG], **options)
    assert alike(one[:1], plain[:1])
    assert not alike(one[1:], plain[1:])
    assert alike(one[1:], draw(base, CAT, negative_prompt=DOG, **options)[1:])


def test_both_halves_reach_every_tile(drawing):
    stage = drawing.stages["upsampler"]
    small = torch.rand(1, 3, 16, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1

    def run(guidance: float, tiles: Tiles, **prompts: str) -> Tensor:
        inputs = Inputs({name: [text] for name, text in prompts.items()})
        settings = stage.sampling.changed(guidance=guidance)
        return stage.run([1], inputs, small, Run(settings=settings, tiles=tiles))

    for tiles in (Tiles(32, 0), Tiles(32, 8)):
        against = run(0.0, tiles, prompt=CAT, negative_prompt=DOG)
        assert against.equal(run(1.0, tiles, prompt=DOG))
        with_both = run(2.5, tiles, prompt=CAT, negative_prompt=DOG)
        assert not alike(with_both, run(2.5, tiles, prompt=CAT))


# ---- what is refused, and what is reported ------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"prompt": 3}, "prompt must be a text, or a list of texts with one per image, got 3"),
        ({"prompt": {"a": 1}}, "one per image, got dict; the number of images goes in num_images"),
        ({"prompt": [CAT, 3]}, "prompt must be a text for all images or a list with one for each"),
        ({"prompt": [CAT, DOG], "num_images": 3}, "got 2 prompts for 3 images; give one for all"),
        ({"prompt": [CAT], "image": torch.zeros(2, 3, 16, 16)}, "got 1 prompt for 2 images"),
        ({"prompt": "a \udce4 cat"}, "'a \\udce4 cat' is not valid Unicode text"),
        (
            {"prompt": CAT, "negative_prompt": DOG},
            "negative_prompt has no effect at guidance 1; use guidance above 1, such as 3",
        ),
        (
            {"prompt": CAT, "negative_prompt": [DOG, DOG], "guidance": 2.0},
            "negative_prompt: got 2 prompts for 1 image",
        ),
        ({"num_images_per_prompt": 2}, "use num_images; in a list of prompts, repeat each"),
        ({"prompt_embeds": None}, "no argument 'prompt_embeds': use prompt"),
        ({"text": CAT}, "no argument 'text': use prompt"),
    ],
)
def test_a_wrong_prompt_gets_one_line(drawing, arguments, words):
    with pytest.raises(ContractError) as error:
        drawing(**arguments)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_pipeline_without_text_names_what_it_takes(base_stage):
    pipeline = CascadePipeline.from_stages({"base": base_stage})
    with pytest.raises(ContractError, match=r"takes no prompt; it takes labels: animal \(cat, dog"):
        pipeline.check_prompts([CAT])


def test_a_prompt_that_is_cut_is_reported_once_with_what_was_lost(drawing, caplog):
    for _ in range(2):
        drawing("a red cat in the house", seed=0)  # six tokens, two of which mark its ends
    assert caplog.messages == ["the prompt is too long, so this end is cut off: 'the house'"]
    drawing(["a red cat in a house", "a blue cat in a dog", CAT], seed=0)
    assert caplog.messages[1:] == [
        "2 prompts are too long, so this end of the first is cut off: 'a house'"
    ]


def test_words_that_the_encoder_does_not_know_are_reported(drawing, caplog):
    images = draw(drawing, "a 猫 cat 🐱", seed=0)
    assert images.isfinite().all()
    assert caplog.messages == ["the text encoder does not know '猫', '🐱' in the prompts"]


def test_texts_in_other_letters_than_the_encoder_reads_are_reported_once(drawing, caplog):
    encoder = encoders.encoder_of(drawing.stages["base"].contract.condition("text")._encoder_facts)
    encoder.live.scripts = ("Latin",)
    for _ in range(2):
        drawing(["а кошка", "a cat"], seed=0)
    latin = "the text encoder reads Latin letters only, so the images will not follow"
    assert caplog.messages == [
        "the text encoder does not know 'а', 'кошка' in the prompts",
        f"{latin} this prompt: 'а кошка'",
    ]
    drawing(["قط", "кот", "кот a big red house"], seed=0)
    assert caplog.messages[-1] == f"{latin} 2 prompts: 'قط', 'кот'"


def test_a_prompt_that_no_stage_of_the_run_takes_is_told_from_a_pipeline_without_text(
    drawing, upsampler, base_stage
):
    small = torch.zeros(1, 3, 16, 16)
    stages = {"base": drawing.stages["base"], "upsampler": upsampler}
    pipeline = CascadePipeline.from_stages(stages)
    with pytest.raises(ContractError) as error:
        pipeline(CAT, image=small)
    assert str(error.value) == (
        "no stage of this run reads a prompt, since the run starts at 'upsampler'; leave it out."
    )
    stages = {"base": base_stage, "upsampler": drawing.stages["upsampler"]}
    pipeline = CascadePipeline.from_stages(stages)
    with pytest.raises(ContractError, match="since the run stops at 'base'; leave it out"):
        pipeline(CAT, stop_at="base")


def test_no_encoder_is_one_line_before_any_work(drawing, monkeypatch):
    contract = drawing.stages["base"].contract
    text = replace(contract.condition("text"), encoder="minilm-l6", sha256="0" * 64)
    monkeypatch.setattr(encoders.importlib.util, "find_spec", lambda name: None)
    stage = drawing.stages["base"]
    other = DiffusionStage(
        stage.network, stage.process, Contract(contract.space, (contract.conditions[0], text))
    )
    with pytest.raises(ContractError, match=r"minilm-l6 is not installed; run pip install"):
        CascadePipeline.from_stages({"base": other})(CAT)
