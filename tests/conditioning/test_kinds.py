"""What holds for every kind of condition. A new kind is entered into `PLAIN`."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass, replace

import pytest
import torch

from cascade.conditioning.assembling import (
    against_signals,
    request_signals,
    training_signals,
)
from cascade.conditioning.batch import Batch
from cascade.conditioning.condition import Condition
from cascade.conditioning.defects import DefectsCondition
from cascade.conditioning.degradation import Degradation
from cascade.conditioning.faults.compression import Compression
from cascade.conditioning.image_embedding import ImageEmbedding
from cascade.conditioning.inputs import Inputs, Request
from cascade.conditioning.kinds import CONDITIONS, find_condition, read_conditions
from cascade.conditioning.labels import Labels
from cascade.conditioning.low_resolution import LowResolution
from cascade.conditioning.luminance import Luminance
from cascade.conditioning.mask import Mask
from cascade.conditioning.paired_image import PairedImage
from cascade.conditioning.signals import ChannelSignal, Signals
from cascade.conditioning.slots import Classes, Dense, Level
from cascade.conditioning.text import Text, TextOptions
from cascade.diffusion.noise import SeededNoise
from cascade.errors import ContractError
from cascade.sampling.guidance import GuidedSignals
from cascade.space import Space

SPACE = Space(size_px=16)
PLAIN: dict[str, Condition] = {
    "labels": Labels(fields={"animal": ["cat", "dog"], "style": ["noto", "twemoji"]}, drop=0.4),
    "low_resolution": LowResolution(
        size_px=(4, 4),
        quantised=False,
        augmentation_range=(0.1, 0.7),
        blur_probability=0.5,
        degradation=Degradation(compression=Compression(quality=(40, 60))),
        drop=0.4,
    ),
    "luminance": Luminance(quantised=False, augmentation_range=(0.1, 0.7), drop=0.4),
    "paired_image": PairedImage(
        channels=2, range=((0, 1), (0, 5)), augmentation_range=(0.1, 0.7), drop=0.4
    ),
    "mask": Mask(drop=0.4),
    "defects": DefectsCondition(drop=0.4),
}
KINDS = ("labels", "text", "image_embedding", "low_resolution", "luminance", "paired_image")
KINDS += ("mask", "defects")
CAPTIONS = (
    "a cat",
    "a red dog",
    "the house",
    "a dot of green",
    "black",
    "a cat in white",
    "dog",
    "",
)
each_kind = pytest.mark.parametrize("condition", KINDS, indirect=True)


@pytest.fixture(scope="session")
def examples(text_encoders, colour_vision) -> dict[str, Condition]:
    """A condition of every kind, by name."""
    options = TextOptions(encoder=str(text_encoders["bert"]), max_tokens=12, drop=0.4)
    every = {
        **PLAIN,
        "text": Text.of_recipe(options, lambda fields: {}),
        "image_embedding": ImageEmbedding.of_encoder(colour_vision.name, drop=0.4),
    }
    return {name: every[name] for name in KINDS}


@pytest.fixture
def condition(request, examples) -> Condition:
    return examples[request.param]


@pytest.fixture
def batch() -> Batch:
    """Eight images of 16 px with two labels and a caption."""
    draw = torch.Generator().manual_seed(0)
    batch = Batch(
        images=torch.rand(8, 3, 16, 16, generator=draw) * 1.9 - 0.95,
        seeds=tuple(range(30, 38)),
        conditions={
            "labels": torch.randint(0, 2, (8, 2), generator=draw),
            "text": tuple((text,) if text else () for text in CAPTIONS),
            "paired_image": torch.rand(8, 2, 16, 16, generator=draw) * 1.9 - 0.95,
        },
    )
    PLAIN["low_resolution"].input_of(batch, SPACE, degraded=True)  # shares the defects
    return batch


def part(batch: Batch, places: list[int]) -> Batch:
    return Batch(
        images=batch.images[places],
        seeds=tuple(batch.seeds[place] for place in places),
        conditions={
            "labels": batch.conditions["labels"][places],
            "text": tuple(batch.conditions["text"][place] for place in places),
            "paired_image": batch.conditions["paired_image"][places],
        },
        shared={"defects": batch.shared["defects"][places]},
    )


def request_for(batch: Batch, inputs: Inputs, level: float = 0.0) -> Request:
    return Request(
        inputs=inputs,
        previous=None,
        space=SPACE,
        size_px=SPACE.size,
        augmentation_level=level,
        noise=SeededNoise(batch.seeds, "sample"),
    )


def assert_equal(first: Signals, second: Signals) -> None:
    assert list(first.channels) == list(second.channels)
    assert list(first.vectors) == list(second.vectors)
    for name, each in first.channels.items():
        assert each.scale == second.channels[name].scale
        assert each.image.equal(second.channels[name].image)
    for name, each in first.vectors.items():
        assert each.equal(second.vectors[name])
    assert list(first.tokens) == list(second.tokens)
    for name, each in first.tokens.items():
        assert each.tokens.equal(second.tokens[name].tokens)
        assert each.mask.equal(second.tokens[name].mask)


def tensors_of(signals: Signals) -> list[torch.Tensor]:
    tensors: list[torch.Tensor] = []
    signals.map(lambda tensor: tensors.append(tensor) or tensor)
    return tensors


# ---- names and settings -------------------------------------------------------------------------


def test_every_kind_is_a_final_class_under_its_own_name_with_an_example_here(examples):
    assert list(CONDITIONS) == [*KINDS, "latents"]  # these steer no noise process
    for name in KINDS:
        kind = CONDITIONS[name]
        assert kind.name == name
        assert type(examples[name]) is kind
        assert kind.__final__
        assert is_dataclass(kind.recipe)


@each_kind
def test_settings_survive_json(condition):
    configs = json.loads(json.dumps({condition.name: condition.config()}))
    (read,) = read_conditions(configs)
    assert read == condition
    assert read.config() == condition.config()


def test_conditions_are_read_in_the_order_in_which_they_were_written(examples):
    backwards = {name: examples[name].config() for name in reversed(KINDS)}
    assert [each.name for each in read_conditions(backwards)] == list(reversed(KINDS))


def test_unknown_kinds_are_refused_with_the_nearest_name():
    with pytest.raises(ContractError, match="unknown condition 'label': did you mean 'labels'"):
        find_condition("label")
    with pytest.raises(ContractError, match="unknown condition 'depth'"):
        read_conditions({"depth": {}})


@each_kind
def test_a_recipe_s_section_states_what_the_class_takes(condition, text_encoders):
    """`generated` and `paired` are for the data, and the names of classes come from them.

    The hash and the widths of a text encoder come from its files.
    """
    options = {field.name for field in fields(condition.recipe)} - {"generated"}
    from_files = {"sha256", "width", "pooled_width", "known"}
    assert options == {field.name for field in fields(condition)} - from_files - {"paired"}

    def vocabulary(names):
        return {name: ["a " + name] for name in names}

    expected = condition.config()
    stated = {name: value for name, value in condition.config().items() if name in options}
    if condition.takes_text:
        stated["encoder"] = str(text_encoders["bert"])
    elif "fields" in options:
        stated["fields"], expected["fields"] = ["x", "y"], {"x": ["a x"], "y": ["a y"]}
    made = type(condition).of_recipe(condition.recipe(**stated), vocabulary)
    assert made.config() == expected


@each_kind
@pytest.mark.parametrize("drop", [-0.1, 1.5, float("nan")])
def test_drop_is_a_probability(condition, drop):
    with pytest.raises(ContractError, match=f"drop must be from 0 to 1, got {drop}"):
        replace(condition, drop=drop)


# ---- signals ------------------------------------------------------------------------------------


def assert_fits_slots(condition: Condition, signals: Signals, count: int) -> None:
    slots = condition.slots(SPACE)
    assert list(signals.channels) == ([condition.name] if slots.channels else [])
    for each in signals.channels.values():
        assert each.image.shape[:2] == (count, slots.channels)
        assert each.image.shape[-1] * each.scale == 16
    assert list(signals.vectors) == ([] if slots.vector is None else [condition.name])
    for each in signals.vectors.values():
        shapes = {Level: (count,)}
        if isinstance(slots.vector, Dense):
            shapes[Dense] = (count, slots.vector.width)
        if isinstance(slots.vector, Classes):
            shapes[Classes] = (count, len(slots.vector.sizes))
        assert tuple(each.shape) == shapes[type(slots.vector)]
    assert list(signals.tokens) == ([condition.name] if slots.tokens else [])
    for each in signals.tokens.values():
        length = 12 if condition.takes_text else 1
        assert each.tokens.shape == (count, length, slots.tokens)
        assert each.mask.shape == (count, length)


@each_kind
def test_training_and_sampling_fill_the_slots(condition, batch):
    signals = condition.of_batch(batch, SPACE, SeededNoise(batch.seeds, "a"))
    assert_fits_slots(condition, signals, 8)
    inputs = Inputs({condition.input_name: condition.input_of(batch, SPACE)})
    sampled = condition.of_request(request_for(batch, inputs, level=0.3))
    assert_fits_slots(condition, sampled, 8)


@each_kind
def test_training_with_drop_1_and_absent_signals_are_the_same(condition, batch):
    dropped, kept = (
        replace(condition, drop=drop).of_batch(batch, SPACE, SeededNoise(batch.seeds, "a"))
        for drop in (1.0, 0.0)
    )
    assert_equal(dropped, condition.absent(kept))
    assert_equal(condition.absent(dropped), dropped)


@each_kind
def test_drop_hides_images_and_changes_no_other_draw(condition, batch):
    some, kept = (
        replace(condition, drop=drop).of_batch(batch, SPACE, SeededNoise(batch.seeds, "a"))
        for drop in (condition.drop, 0.0)
    )
    absent = condition.absent(kept)
    tensors, *others = (tensors_of(signals) for signals in (some, kept, absent))
    for mixed, whole, empty in zip(tensors, *others, strict=True):
        is_kept, is_empty = (mixed == whole), (mixed == empty)
        assert (is_kept | is_empty).all()
        assert not is_kept.all()
        assert not is_empty.all()


@each_kind
def test_the_signals_of_an_image_depend_on_its_seed_alone(condition, batch):
    whole = training_signals([condition], batch, SPACE)
    for places in ([5], [7, 0, 5]):
        assert_equal(
            training_signals([condition], part(batch, places), SPACE),
            whole.map(lambda tensor, places=places: tensor[places]),
        )


@each_kind
def test_adding_conditions_changes_no_draw_of_this_one(condition, examples, batch):
    alone = training_signals([condition], batch, SPACE)
    others = [each for each in examples.values() if each is not condition]
    for stage in ([condition, *others], [*others, condition], [others[0], condition]):
        assert_equal(training_signals(stage, batch, SPACE).only(condition.name), alone)


def test_conditions_of_one_batch_draw_different_levels(batch):
    signals = training_signals(list(PLAIN.values()), batch, SPACE)
    levels = [signals.vectors[name] for name in ("low_resolution", "luminance")]
    assert (levels[0] - levels[1]).abs().min() > 0


@each_kind
@pytest.mark.parametrize("degraded", [False, True])
def test_the_input_of_a_batch_is_what_sampling_gets(condition, batch, degraded):
    """Training without noise, blur and drop sees what sampling makes of the batch's input."""
    changes = {"drop": 0.0, "augmentation_range": (0.0, 0.0), "blur_probability": 0.0}
    if not degraded:
        changes["degradation"] = None
    names = {field.name for field in fields(condition)}
    plain = replace(condition, **{name: v for name, v in changes.items() if name in names})
    value = condition.input_of(batch, SPACE, degraded=degraded)
    if value is None:
        pytest.skip("it is measured on the image of another condition")
    sampled = plain.of_request(request_for(batch, Inputs({condition.input_name: value})))
    assert_equal(sampled, training_signals([plain], batch, SPACE))


# ---- assembling ---------------------------------------------------------------------------------


def test_signals_come_in_the_order_of_the_conditions(batch):
    stage = [PLAIN["luminance"], PLAIN["labels"], PLAIN["low_resolution"]]
    signals = training_signals(stage, batch, SPACE)
    assert list(signals.channels) == ["luminance", "low_resolution"]
    assert list(signals.vectors) == ["luminance", "labels", "low_resolution"]


def test_a_request_gives_every_condition_its_own_input(batch):
    stage = [PLAIN["labels"], PLAIN["luminance"]]
    values = {each.input_name: each.input_of(batch, SPACE) for each in stage}
    signals = request_signals(stage, request_for(batch, Inputs(values)))
    assert signals.vectors["labels"].equal(batch.conditions["labels"])
    assert signals.channels["luminance"].image.equal(values["image"])


def other_half(stage, batch, signals: Signals) -> Signals:
    """The signals of the other half of a guided step."""
    request = request_for(batch, Inputs())
    return GuidedSignals(signals, against_signals(stage, request, signals)).other


def test_guidance_leaves_out_what_training_drops_and_shares_the_rest(batch):
    labels, image = PLAIN["labels"], replace(PLAIN["low_resolution"], drop=0.0)
    features = torch.rand(8, 4, 4, 4)
    signals = replace(training_signals([labels, image], batch, SPACE), features=features)
    without = other_half([labels, image], batch, signals)
    assert without.vectors["labels"].eq(-1).all()
    assert without.channels["low_resolution"] is signals.channels["low_resolution"]
    assert without.vectors["low_resolution"] is signals.vectors["low_resolution"]
    assert without.features is features
    assert not signals.vectors["labels"].eq(-1).all()


def test_features_of_an_image_that_guidance_leaves_out_are_forgotten(batch):
    stage = [PLAIN["luminance"], replace(PLAIN["labels"], drop=0.0)]
    grey = ChannelSignal(torch.rand(8, 1, 16, 16))
    signals = Signals(
        channels={"luminance": grey, "edges": grey},
        vectors={"luminance": torch.zeros(8), "labels": batch.conditions["labels"]},
        features=torch.rand(8, 4, 4, 4),
    )
    without = other_half(stage, batch, signals)
    assert not without.channels["luminance"].image.any()
    assert without.channels["edges"] is grey
    assert list(without.channels) == ["luminance", "edges"]
    assert without.vectors["labels"] is signals.vectors["labels"]
    assert without.features is None
