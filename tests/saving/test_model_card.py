from __future__ import annotations

from huggingface_hub import ModelCard

from cascade.saving.model_card import describe, write_model_card


def test_the_card_says_what_can_be_read_off_the_stages(base_stage, upsampler):
    card = ModelCard(describe({"base": base_stage.summary(), "up": upsampler.summary()}))
    assert card.data.library_name == "diffusers"
    assert "unconditional-image-generation" in card.data.tags
    millions = sum(p.numel() for p in base_stage.parameters()) / 1e6
    assert (
        f"| base | noise | 16 px | unet | {millions:.2f} M | v | ddim, 4 steps, guidance 1.0 |"
    ) in card.text
    assert "| up | 16 px | 32 px | unet |" in card.text
    assert "# A cascade of 2 stages" in card.text
    assert "**animal**: cat, dog." in card.text
    assert "**style**: noto, twemoji." in card.text
    assert "# A cascade of 1 stage\n" in describe({"base": base_stage.summary()})


def test_a_given_text_is_written_as_it_is(base_stage, tmp_path):
    write_model_card(tmp_path, {"base": base_stage.summary()}, "# 猫\n")
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == "# 猫\n"
    write_model_card(tmp_path, {"base": base_stage.summary()})
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == describe(
        {"base": base_stage.summary()}
    )
