"""Signals: every operation reaches every tensor, and a window needs only a part of an image."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cascade.conditioning.signals import ChannelSignal, Signals, TokenSignal


def make_signals(seed: int = 0, count: int = 3) -> Signals:
    """Two images of scales 1 and 4, labels, a level, tokens and features of a batch."""
    draw = torch.Generator().manual_seed(seed)
    return Signals(
        channels={
            "grey": ChannelSignal(torch.randn(count, 1, 20, 24, generator=draw)),
            "low_resolution": ChannelSignal(torch.randn(count, 3, 5, 6, generator=draw), 4),
        },
        vectors={
            "labels": torch.randint(0, 9, (count, 2), generator=draw),
            "low_resolution": torch.rand(count, generator=draw),
        },
        tokens={
            "text": TokenSignal(
                torch.randn(count, 7, 8, generator=draw),
                torch.rand(count, 7, generator=draw) < 0.5,
            )
        },
        features=torch.randn(count, 4, 10, 12, generator=draw),
    )


def tensors(signals: Signals) -> list[Tensor]:
    """All tensors, in an order that does not depend on `Signals.map`."""
    listed = [each.image for each in signals.channels.values()]
    listed += signals.vectors.values()
    for each in signals.tokens.values():
        listed += [each.tokens, each.mask]
    return listed if signals.features is None else [*listed, signals.features]


def names(signals: Signals) -> list[list[str]]:
    return [list(each) for each in (signals.channels, signals.vectors, signals.tokens)]


def assert_equal(first: Signals, second: Signals) -> None:
    assert names(first) == names(second)
    assert [each.scale for each in first.channels.values()] == [
        each.scale for each in second.channels.values()
    ]
    for ours, theirs in zip(tensors(first), tensors(second), strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.equal(theirs)


# ---- every tensor -------------------------------------------------------------------------------


def test_map_changes_every_tensor_and_keeps_names_order_and_scales():
    signals = make_signals()
    flipped = signals.map(lambda tensor: tensor.flip(0))
    assert len(tensors(flipped)) == 7
    for ours, theirs in zip(tensors(flipped), tensors(signals), strict=True):
        assert ours.equal(theirs.flip(0))
    assert_equal(flipped.map(lambda tensor: tensor.flip(0)), signals)
    assert Signals().map(lambda tensor: tensor.flip(0)) == Signals()


def test_combine_joins_each_tensor_with_its_counterpart():
    first, second = make_signals(0), make_signals(1)
    pairs = []

    def keep(mine: Tensor, theirs: Tensor) -> Tensor:
        pairs.append((mine, theirs))
        return mine

    assert_equal(first.combine(second, keep), first)
    places = [(id(mine), id(theirs)) for mine, theirs in pairs]
    expected = zip(tensors(first), tensors(second), strict=True)
    assert sorted(places) == sorted((id(mine), id(theirs)) for mine, theirs in expected)


def test_concatenation_stacks_batches_and_leaves_out_what_neither_has():
    first, second = make_signals(0, count=3), make_signals(1, count=2)
    both = first.concatenate(second)
    assert_equal(both.map(lambda tensor: tensor[:3]), first)
    assert_equal(both.map(lambda tensor: tensor[3:]), second)
    assert Signals().concatenate(Signals()) == Signals()


def test_features_are_joined_only_if_both_have_them():
    signals = make_signals()
    assert signals.concatenate(signals.without_features()).features is None
    assert signals.without_features().concatenate(signals).features is None


def test_replaced_takes_the_other_signals_of_chosen_images_and_changes_no_original():
    signals, other = make_signals(0), make_signals(1)
    copies = [each.map(Tensor.clone) for each in (signals, other)]
    mixed = signals.replaced(torch.tensor([False, True, False]), other)
    assert_equal(mixed.map(lambda each: each[1]), other.map(lambda each: each[1]))
    assert_equal(mixed.map(lambda each: each[::2]), signals.map(lambda each: each[::2]))
    assert_equal(signals.replaced(torch.zeros(3, dtype=torch.bool), other), signals)
    assert_equal(signals.replaced(torch.ones(3, dtype=torch.bool), other), other)
    for ours, copied in zip((signals, other), copies, strict=True):
        assert_equal(ours, copied)


def test_merging_replaces_in_place_and_puts_new_names_last():
    signals = make_signals()
    edges = ChannelSignal(torch.zeros(3, 1, 20, 24))
    blank = ChannelSignal(torch.zeros(3, 1, 20, 24))
    merged = signals.merged(Signals(channels={"edges": edges, "grey": blank}))
    assert list(merged.channels) == ["grey", "low_resolution", "edges"]
    assert merged.channels["grey"] is blank
    assert merged.channels["low_resolution"] is signals.channels["low_resolution"]
    assert merged.features is signals.features
    assert merged.vectors == signals.vectors
    assert_equal(Signals().merged(signals), signals)


def test_the_signals_of_one_condition_are_those_of_its_name():
    own = make_signals().only("low_resolution")
    assert names(own) == [["low_resolution"], ["low_resolution"], []]
    assert own.features is None
    assert make_signals().only("nothing") == Signals()


def test_without_features_all_else_stays():
    signals = make_signals()
    assert signals.without_features().features is None
    assert_equal(signals.without_features().merged(signals), signals)


# ---- windows ------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_a_window_equals_the_window_cut_out_of_the_whole_image(scale):
    """For every extent of rows, at both borders and inside along the columns, and turned."""
    image = torch.randn(2, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    height, width = 5 * scale, 6 * scale
    across = [slice(0, 1), slice(0, width), slice(width - 1, width), slice(width // 3, width - 2)]
    for pixels, turned in ((image, False), (image.transpose(-2, -1), True)):
        signal = ChannelSignal(pixels, scale)
        whole = signal.enlarged().image
        for start in range(height):
            for stop in range(start + 1, height + 1):
                for other in across:
                    spans = (slice(start, stop), other)
                    rows, columns = spans[::-1] if turned else spans
                    window = signal.window(rows, columns)
                    assert window.scale == 1
                    expected = whole[..., rows, columns]
                    torch.testing.assert_close(window.image, expected, rtol=0, atol=1e-5)


def test_a_window_reads_only_the_pixels_around_it():
    image = torch.full((1, 1, 40, 40), torch.nan)
    image[..., 10:18, 20:29] = 0.5  # rows 48 to 63 and columns 88 to 107, and two pixels around
    window = ChannelSignal(image, 4).window(slice(48, 64), slice(88, 108))
    torch.testing.assert_close(window.image, torch.full((1, 1, 16, 20), 0.5))


def test_enlarging_is_bicubic_and_leaves_an_image_of_scale_1_alone():
    signals = make_signals()
    large = signals.enlarged()
    grey, small = signals.channels.values()
    assert large.channels["grey"] is grey
    expected = F.interpolate(small.image, scale_factor=4, mode="bicubic")
    torch.testing.assert_close(large.channels["low_resolution"].image, expected)
    assert large.channels["low_resolution"].scale == 1
    assert large.enlarged() is large


def test_a_window_of_signals_cuts_images_and_keeps_all_else():
    signals = make_signals()
    rows, columns = slice(3, 19), slice(8, 24)
    window = signals.window(rows, columns)
    whole = signals.enlarged()
    for name, each in window.channels.items():
        expected = whole.channels[name].image[..., rows, columns]
        torch.testing.assert_close(each.image, expected, rtol=0, atol=1e-5)
    assert window.vectors is signals.vectors
    assert window.tokens is signals.tokens
