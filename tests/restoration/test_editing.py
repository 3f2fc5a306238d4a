"""Editing pictures: masks, windows, pasting, and what each stage of a chain is told."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from cascade.contract import Contract
from cascade.errors import ContractError
from cascade.imaging.picture import Picture
from cascade.restoration.editing import Editing, check_can_edit, prepare_edit
from cascade.restoration.holes import Borders, grown, hole_in, hole_of, ramp, reduced
from cascade.restoration.subject import Subject
from cascade.restoration.windows import Box, Frame
from cascade.sampling.walk import Hooks
from cascade.space import Space


def hole_at(size_px, rows, columns):
    hole = torch.zeros(size_px, dtype=torch.bool)
    hole[rows, columns] = True
    return hole


# ---- masks --------------------------------------------------------------------------------------


def test_white_is_the_hole_in_every_form_of_a_mask():
    grey = np.array([[0, 127, 128, 255]], dtype=np.uint8)
    expected = torch.tensor([[False, False, True, True]])
    image = Image.fromarray(grey)
    white_on_clear = Image.fromarray(np.stack([np.full((1, 4), 255, np.uint8), grey], axis=-1))
    for mask in (
        image,
        image.convert("RGB"),
        Picture.from_pil(image),
        grey,
        torch.from_numpy(grey),
        expected,
        expected[None],
        expected.numpy(),
        white_on_clear,
        Image.fromarray(grey > 127),
    ):
        assert hole_of(mask, (1, 4)).equal(expected)


@pytest.mark.parametrize("white", [255, 65_535])
def test_white_of_32_bit_numbers_is_their_largest(white):
    hole = torch.tensor([[False, True, False]])
    mask = Image.fromarray((hole.int() * white).numpy())
    assert mask.mode == "I"
    assert hole_of(mask, (1, 3)).equal(hole)
    deep = Image.fromarray((hole.int() * 255).numpy().astype(np.uint16))
    assert not hole_of(deep, (1, 3)).any()  # 255 of 65535 is nearly black


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (Image.new("I", (4, 4), 200), "mode I, .* expected 0 and 255 or 0 and 65535 alone, got"),
        (Image.fromarray(np.diag([255, 65_535, 0, 0]).astype(np.int32)), "others from 0 to 65535"),
        (
            Image.new("I", (0, 0)),
            "the mask has 0x0 px, but the image has 4x4; a mask is for images of",
        ),
        (
            Image.new("L", (5, 4)),
            "the mask has 5x4 px, but the image has 4x4; a mask is for images of",
        ),
        (Image.new("RGB", (4, 4), "red"), "the mask has colours; it must be black and white"),
        (torch.zeros(4, 4), "a mask must be a PIL image, .* got torch.float32"),
        (np.zeros((4, 4), np.int64), "bool or uint8 array or tensor .* got int64"),
        (torch.zeros(3, 4, 4, dtype=torch.bool), r"a mask must be \(h, w\), got \(3, 4, 4\)"),
        ("mask.png", "a mask must be .* got 'mask.png'"),
    ],
)
def test_what_is_no_mask_is_refused(mask, message):
    with pytest.raises(ContractError, match=message):
        hole_of(mask, (4, 4))


@pytest.mark.parametrize("size_px", [(4, 4), (5, 3), (11, 16), (31, 40)])
def test_every_pixel_that_touches_the_hole_belongs_to_it_at_another_size(size_px):
    """By brute force: pixels of both sizes overlap as intervals of the same unit square."""
    generator = torch.Generator().manual_seed(0)
    hole = torch.rand(16, 16, generator=generator) < 0.04
    result = reduced(hole, size_px)
    for row in range(size_px[0]):
        for column in range(size_px[1]):
            touches = any(
                row * 16 < (y + 1) * size_px[0]
                and y * size_px[0] < (row + 1) * 16
                and column * 16 < (x + 1) * size_px[1]
                and x * size_px[1] < (column + 1) * 16
                for y, x in hole.nonzero().tolist()
            )
            assert bool(result[row, column]) == touches


def test_one_pixel_at_a_corner_is_not_lost():
    assert reduced(hole_at((64, 64), 3, 3), (16, 16)).nonzero().tolist() == [[0, 0]]


def test_a_stage_of_measured_bands_edits_no_pictures():
    with pytest.raises(ContractError, match="not for stages that make bands"):
        check_can_edit([Contract(Space(size_px=8, range=(0, 4000)))], Editing())


def test_a_hole_grows_at_all_sides_but_not_beyond_the_picture():
    hole = hole_at((7, 9), 0, 4)
    assert grown(hole, 2).equal(hole_at((7, 9), slice(0, 3), slice(2, 7)))
    assert grown(hole, 0).equal(hole)
    subject = Subject.of(torch.zeros(3, 7, 9), hole, uncrop=(1, 0, 0, 0), grow_px=1)
    expected = hole_at((7, 10), slice(0, 2), slice(4, 7))
    expected[:, 0] = True  # a new border does not eat into the picture
    assert subject.hole.equal(expected)


def test_a_soft_edge_lies_inside_the_hole():
    hole = hole_at((9, 9), slice(2, 9), slice(0, 9))
    weight = ramp(hole, 3)
    assert weight[:, 4].tolist() == pytest.approx([0, 0, 1 / 3, 2 / 3, 1, 1, 1, 1, 1])
    assert ramp(hole, 0).equal(hole.float())


def test_a_soft_edge_blends_with_the_surroundings_and_not_with_what_vanishes():
    hole = hole_at((9, 9), slice(3, 6), slice(3, 6))
    image = torch.where(hole, 1.0, -1.0)[None].repeat(3, 1, 1)  # a white scratch on black
    subject = Subject.of(image, hole)
    black, box = torch.full((1, 3, 9, 9), -1.0), Box(0, 0, 9, 9)
    assert subject.pasted(black, box, 3).max() < -0.99
    assert subject.pasted(black, box, 3, from_hole=True).max() > 0.3


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_new_borders_start_from_the_colours_at_the_edge(base_stage, strength):
    subject = Subject.of(torch.full((3, 12, 12), 0.75), uncrop=(0, 0, 4, 4))
    assert subject.image.allclose(torch.tensor(0.75))
    contracts, editing = [base_stage.contract], Editing(strength=strength)
    edit, _ = prepare_edit(contracts, subject.image, subject.hole, editing)
    assert edit.image.allclose(torch.tensor(0.75))


def test_hidden_colours_under_transparent_pixels_are_no_start():
    pixels = np.full((8, 8, 4), 255, np.uint8)
    pixels[2:5, 2:5] = (255, 0, 255, 0)  # magenta that nobody sees
    subject = Subject.of(Image.fromarray(pixels), whole=True)
    assert subject.image.allclose(torch.tensor(1.0))
    assert subject.hole.sum() == 9


# ---- windows ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size_px", "hole", "expected"),
    [
        ((64, 64), (slice(3, 9), slice(50, 60)), Box(0, 0, 64, 64)),  # the picture itself
        ((256, 256), (slice(3, 9), slice(50, 60)), Box(0, 0, 256, 256)),  # downscaled
        ((40, 100), (slice(3, 9), slice(60, 70)), Box(0, 45, 40, 40)),  # the largest square
        ((40, 100), (slice(3, 9), slice(0, 9)), Box(0, 0, 40, 40)),  # moved inside
        ((40, 100), (slice(3, 9), slice(0, 100)), Box(-30, 0, 100, 100)),  # beyond the picture
    ],
)
def test_a_chain_of_one_size_sees_the_largest_square_around_the_hole(size_px, hole, expected):
    frame = Frame(Space(size_px=64), is_fixed=True)
    assert frame.window(hole_at(size_px, *hole)) == expected


def test_a_window_has_the_shape_of_the_stage_and_any_size_that_holds_the_hole():
    hole = hole_at((90, 200), slice(10, 20), slice(80, 90))
    wide = Frame(Space(size_px=(32, 64)), is_fixed=True)
    assert wide.window(hole)[2:] == (90, 180)
    small = Frame(Space(size_px=(32, 64)), is_fixed=True, window_px=50)
    assert small.window(hole) == Box(3, 60, 25, 50)
    least = Frame(Space(size_px=(32, 64)), is_fixed=True, window_px=5)
    assert least.window(hole)[2:] == (10, 20)


def test_a_chain_of_any_size_sees_the_hole_and_what_is_around_it_at_full_resolution():
    frame = Frame(Space(size_px=32), is_fixed=False)
    hole = hole_at((300, 200), slice(100, 110), slice(0, 20))
    assert frame.window(hole) == Box(84, 0, 42, 52)
    even = Frame(Space(size_px=32), is_fixed=False, multiple_px=8)
    assert even.window(hole) == Box(81, 0, 48, 56)
    assert frame.window(hole_at((20, 30), slice(0, 20), slice(0, 3))) == Box(0, 0, 20, 30)


def test_a_box_cuts_and_puts_the_same_pixels():
    image = torch.arange(3 * 6 * 8).view(3, 6, 8).float()
    box = Box(-2, 5, 10, 7)
    part = box.cut(image, -1.0)
    assert part.shape == (3, 10, 7)
    assert (part == -1).sum() == 3 * (10 * 7 - 6 * 3)
    inside, rows, columns = box.put(part, (6, 8))
    assert inside.equal(image[:, rows, columns])


# ---- pictures in every form ---------------------------------------------------------------------


def forms():
    draw = np.random.default_rng(0)
    eight = draw.integers(0, 256, (12, 10, 3)).astype(np.uint8)
    sixteen = draw.integers(0, 65536, (3, 12, 10)).astype(np.uint16)
    return {
        "pil": Image.fromarray(eight),
        "grey pil": Image.fromarray(eight[..., 0]),
        "picture of 16 bits": Picture(colour=torch.from_numpy(sixteen), bits=16),
        "8 bits": eight,
        "16 bits": np.moveaxis(sixteen, 0, -1),
        "two dimensions": eight[..., 1],
        "floats": draw.random((12, 10, 3)),
        "batch of one": eight[None],
        "tensor": torch.from_numpy(draw.random((3, 12, 10))).float() * 2 - 1,
    }


def values_of(image):
    if isinstance(image, Picture):
        return np.moveaxis(image.colour.numpy(), 0, -1)
    return np.moveaxis(image.numpy(), -3, -1) if isinstance(image, torch.Tensor) else image


@pytest.mark.parametrize("name", forms())
def test_results_have_the_form_of_the_picture_and_its_exact_values_outside_the_hole(name):
    image, hole = forms()[name], hole_at((12, 10), slice(2, 6), slice(3, 9))
    results = Subject.of(image, hole).pasted(torch.zeros(2, 3, 16, 16), Box(0, -1, 12, 12))
    kind = type(results[0])
    assert isinstance(results[0], kind if name == "batch of one" else type(image))
    old = np.asarray(values_of(image)).reshape(12, 10, -1)
    for result in results:
        new = np.asarray(values_of(result)).reshape(12, 10, -1)
        assert new.dtype == old.dtype
        assert (new[~hole.numpy()] == old[~hole.numpy()]).all()
        middle = {"uint8": 128, "uint16": 32768}.get(str(new.dtype), 0.5)
        assert (new[hole.numpy()] == (0 if name == "tensor" else middle)).all()
    assert np.asarray(values_of(Subject.of(image, hole).unchanged(1)[0])).reshape(
        12, 10, -1
    ).tolist() == (old.tolist())


def test_transparent_pixels_are_the_hole_and_become_opaque():
    image = np.full((8, 8, 4), 255, np.uint8)
    image[2:5, 2:5] = (9, 9, 9, 0)
    image[7, 7] = (9, 9, 9, 200)
    subject = Subject.of(Image.fromarray(image))
    assert subject.hole.equal(hole_at((8, 8), slice(2, 5), slice(2, 5)))
    (result,) = subject.pasted(-torch.ones(1, 3, 8, 8), Box(0, 0, 8, 8))
    result = np.asarray(result)
    assert (result[2:5, 2:5] == (0, 0, 0, 255)).all()
    assert (result[7, 7] == (9, 9, 9, 200)).all()


def test_a_mask_leaves_the_transparency_as_it_is():
    image = np.full((8, 8, 4), 255, np.uint8)
    image[:4, :, 3] = 0
    mask = hole_at((8, 8), slice(0, 8), slice(0, 3))
    (result,) = Subject.of(Image.fromarray(image), mask).pasted(
        torch.zeros(1, 3, 8, 8), Box(0, 0, 8, 8)
    )
    assert (np.asarray(result)[..., 3] == image[..., 3]).all()


def test_a_picture_grows_at_its_borders():
    image = np.full((4, 6, 3), 200, np.uint8)
    subject = Subject.of(Image.fromarray(image), uncrop=(1, 2, 3, 0))
    assert subject.size_px == (6, 10)
    assert int(subject.hole.sum()) == 6 * 10 - 4 * 6
    (result,) = subject.pasted(torch.zeros(1, 3, 6, 10), Box(0, 0, 6, 10))
    assert result.size == (10, 6)
    assert (np.asarray(result)[2:, 1:7] == 200).all()
    assert (np.asarray(result)[:2] == 128).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "nothing to inpaint is marked: give a mask"),
        ({"uncrop": (1, 2, 3)}, "uncrop must be four numbers of pixels"),
        ({"uncrop": (0, 0, 0, 0)}, "uncrop adds nothing"),
        ({"uncrop": (-1, 0, 0, 0)}, "uncrop must be at least 0, got -1"),
        (
            {"image": np.zeros((2, 4, 4, 3), np.uint8)},
            "must be a single image, got 2; call edit for",
        ),
        ({"image": [1]}, "image must be a single image: a PIL image, .* got list"),
    ],
)
def test_what_cannot_be_edited_is_refused(arguments, message):
    with pytest.raises(ContractError, match=message):
        Subject.of(**{"image": Image.new("RGB", (4, 4)), **arguments})


def test_borders_are_named_by_side():
    assert Borders.of([1, 2, 3, 4]) == Borders(left=1, top=2, right=3, bottom=4)


# ---- what each stage is told --------------------------------------------------------------------


def test_each_stage_knows_the_true_picture_at_its_own_size(base_stage, upsampler):
    contracts = [base_stage.contract, upsampler.contract]
    image = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8
    hole = hole_at((32, 32), slice(9, 16), slice(3, 8))
    edit, box = prepare_edit(contracts, image, hole, Editing(resamplings=3))
    assert box == Box(0, 0, 32, 32)
    last = edit.hooks(upsampler, 2, Hooks())
    assert last.known is not None
    assert last.known.image[0][:, ~hole].equal(image[:, ~hole])
    assert last.known.mask.equal(~hole)
    assert last.resampling.resamplings == 1
    first = edit.hooks(base_stage, 2, Hooks())
    assert first.known is not None
    assert first.known.image.shape == (1, 3, 16, 16)
    assert first.known.mask.equal(~hole_at((16, 16), slice(4, 8), slice(1, 4)))
    assert first.resampling.resamplings == 3
    assert edit.input_image(base_stage) is None
    assert edit.tiles(upsampler) is None


def test_what_is_in_the_hole_changes_nothing_unless_it_is_the_start(base_stage):
    image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8
    hole = hole_at((16, 16), slice(4, 9), slice(3, 8))
    other = torch.where(hole, torch.tensor(1.0), image)
    for strength, is_same in ((1.0, True), (0.5, False)):
        first, second = (
            prepare_edit([base_stage.contract], each, hole, Editing(strength=strength))[0]
            for each in (image, other)
        )
        assert first.image.equal(second.image) == is_same
        start = first.hooks(base_stage, 4, Hooks()).start_from
        assert (start is None) == is_same


def test_an_inpainter_gets_the_hole_as_its_input_and_needs_no_resampling(inpainter):
    image = torch.rand(3, 90, 40, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8
    hole = hole_at((90, 40), slice(40, 45), slice(20, 25))
    edit, box = prepare_edit([inpainter.contract], image, hole, Editing())
    assert box == Box(32, 12, 21, 21)
    value = edit.input_image(inpainter)
    assert value is not None
    assert value.shape == (1, 4, 21, 21)
    assert value[0, 3].equal(torch.where(hole[32:53, 12:33], -1.0, 1.0))
    assert value[0, :3, 0].equal(image[:, 32, 12:33])
    assert edit.hooks(inpainter, 1, Hooks()).resampling.resamplings == 1
    assert edit.tiles(inpainter) is not None


def test_an_upsampler_gets_the_picture_at_its_small_size_without_the_hole(upsampler):
    image = torch.full((3, 90, 40), 0.25)
    hole = hole_at((90, 40), slice(40, 43), slice(20, 25))
    image[:, hole] = 1.0
    edit, box = prepare_edit([upsampler.contract], image, hole, Editing())
    scale, grid = upsampler.contract.scale, upsampler.contract.grid_px
    assert box.height % grid == box.width % grid == 0
    small = edit.input_image(upsampler)
    assert small is not None
    assert small.shape == (1, 3, box.height // scale, box.width // scale)
    assert torch.allclose(small, torch.tensor(0.25))
    hooks = edit.hooks(upsampler, 1, Hooks())
    assert hooks.resampling.resamplings == 1
    assert hooks.known is not None
    assert hooks.known.mask.equal(~edit.hole)


@pytest.mark.parametrize("height", [3, 40])  # a strip may be lower than the least wide hole
@pytest.mark.parametrize(("width", "is_told"), [(4, False), (5, True)])
def test_an_upsampler_says_that_it_fills_wide_holes_smoothly(upsampler, height, width, is_told):
    assert upsampler.contract.scale == 2
    hole = hole_at((height, 40), slice(0, 30), slice(20, 20 + width))
    remark = Editing().remark(upsampler.contract, hole)
    assert remark.startswith("has a hole wider than 4 px") == is_told
    assert bool(remark) == is_told


def test_nothing_is_said_of_holes_that_an_upsampler_does_not_fill(upsampler, base_stage):
    wide = hole_at((40, 40), slice(0, 40), slice(0, 39))
    whole = hole_at((40, 40), slice(0, 40), slice(0, 40))
    assert Editing().remark(upsampler.contract, wide) != ""
    assert Editing().remark(upsampler.contract, ~whole) == ""
    assert Editing().remark(upsampler.contract, whole) == ""  # which is refused
    assert Editing(strength=0.5).remark(upsampler.contract, wide) == ""
    assert Editing().remark(base_stage.contract, wide) == ""


def test_the_hole_of_a_picture_lies_in_its_grown_mask_and_its_borders():
    picture = Picture(colour=torch.zeros(3, 6, 5, dtype=torch.uint8))
    mask = hole_at((6, 5), slice(2, 3), slice(2, 3))
    hole = hole_in(picture, mask.numpy(), Borders(left=2), 1)
    expected = hole_at((6, 7), slice(1, 4), slice(3, 6)) | hole_at((6, 7), slice(0, 6), slice(0, 2))
    assert hole.equal(expected)
    assert not hole_in(picture, None, None, 1).any()


def test_chains_that_cannot_edit_are_refused(base_stage, upsampler, colouriser, inpainter):
    for stages, message in (
        (
            [colouriser],
            "takes greyscale 16 px, so it cannot edit images; editing needs a first stage",
        ),
    ):
        with pytest.raises(ContractError, match=message):
            check_can_edit([stage.contract for stage in stages], Editing())
    latents = Contract(Space(size_px=8, channels=4, kind="latents"))
    with pytest.raises(ContractError, match="editing needs stages that make pixels; one makes lat"):
        check_can_edit([latents], Editing())
    for name in ("resamplings", "jump_length"):
        with pytest.raises(ContractError, match=f"{name} has no effect, because the first stage"):
            check_can_edit([inpainter.contract], Editing(**{name: 2}))
        with pytest.raises(ContractError, match=f"{name} has no effect, .* starts from an image"):
            check_can_edit([upsampler.contract], Editing(**{name: 2}))
    with pytest.raises(ContractError, match="edits images of 3 channels, got one of 2"):
        prepare_edit(
            [base_stage.contract], torch.zeros(2, 16, 16), torch.ones(16, 16) > 0, Editing()
        )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"strength": 0}, "strength must be above 0 and at most 1, got 0"),
        ({"strength": 1.5}, "strength must be above 0 and at most 1"),
        ({"strength": "much"}, "strength must be a number, got 'much'"),
        ({"resamplings": 0}, "resamplings must be at least 1"),
        ({"jump_length": 0}, "jump_length must be at least 1"),
        ({"grow_px": -1}, "grow_px must be at least 0"),
        ({"stays_grey": 1}, "stays_grey must be True or False"),
        ({"window_px": 0}, "window_px must be at least 1"),
        ({"feather_px": -1}, "feather_px must be at least 0"),
        ({"resamplings": 1, "jump_length": 3}, "jump_length has no effect with resamplings 1"),
    ],
)
def test_settings_out_of_range_are_refused(values, message):
    with pytest.raises(ContractError, match=message):
        Editing(**values)
