from __future__ import annotations

from huggingface_hub import ModelCard

from cascade.saving.model_card import Usage, describe, write_model_card

USAGE = Usage(
    tags=("unconditional-image-generation", "image-generation"),
    command="cascade generate this/folder -n 4 -o out",
    python=("from cascade import CascadePipeline", "", "pipeline(seed=0).images[0].show()"),
)


def test_the_card_says_what_can_be_read_off_the_stages(base_stage, upsampler):
    stages = {"base": base_stage.summary(), "up": upsampler.summary()}
    card = ModelCard(describe(stages, USAGE))
    assert card.data.library_name == "diffusers"
    assert card.data.tags == [
        "cascade-diffusion",
        "unconditional-image-generation",
        "image-generation",
    ]
    millions = sum(p.numel() for p in base_stage.parameters()) / 1e6
    assert (
        f"| base | noise | 16 px | unet | {millions:.2f} M | v | ddim, 4 steps, guidance 1.0 |"
    ) in card.text
    assert "| up | 16 px | 32 px | unet |" in card.text
    shifted = base_stage.with_sampling(base_stage.sampling.changed(timestep_shift=8, eta=0))
    text = describe({"base": shifted.summary()}, USAGE)
    assert "| ddim, 4 steps, guidance 1.0, timestep_shift 8 |" in text
    assert "# A cascade of 2 stages" in card.text
    assert "**animal**: cat, dog." in card.text
    assert "**style**: noto, twemoji." in card.text
    assert "# A cascade of 1 stage\n" in describe({"base": base_stage.summary()}, USAGE)


def test_the_examples_stand_in_blocks_of_code_and_are_left_out_where_there_are_none(base_stage):
    stages = {"base": base_stage.summary()}
    text = describe(stages, USAGE)
    assert "```sh\ncascade generate this/folder -n 4 -o out\n```\n" in text
    assert "```python\n" + "\n".join(USAGE.python) + "\n```\n" in text
    card = ModelCard(describe(stages, None))
    assert card.data.tags == ["cascade-diffusion"]
    assert "```" not in card.text


def test_a_given_text_is_written_as_it_is(base_stage, tmp_path):
    stages = {"base": base_stage.summary()}
    write_model_card(tmp_path, stages, USAGE, "# 猫\n")
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == "# 猫\n"
    write_model_card(tmp_path, stages, USAGE)
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == describe(stages, USAGE)
