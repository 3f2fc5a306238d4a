"""The U-Net of guided diffusion from its published description, and weights in its true layout.

Nothing here is shared with the package: one walk over the network names the weights, draws them
when it first needs them, and computes in float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

GROUPS = 32


@dataclass
class Reference:
    """A network by the flags of its training script, which draws its own weights."""

    channels: int = 32
    mult: tuple[float, ...] = (1, 2)
    res_blocks: int = 1
    attention_ds: tuple[int, ...] = (2,)
    classes: int | None = None
    learn_sigma: bool = True
    scale_shift: bool = True
    resblock_updown: bool = True
    is_upsampler: bool = False
    heads: int = 4
    head_channels: int | None = None
    new_order: bool = False
    eps: float = 1e-5
    weights: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self):
        self._random = torch.Generator().manual_seed(0)
        side = 2 ** len(self.mult)
        low_res = torch.zeros(1, 3, side // 2, side // 2) if self.is_upsampler else None
        labels = None if self.classes is None else torch.zeros(1, dtype=torch.long)
        self(torch.zeros(1, 3, side, side), torch.zeros(1), labels, low_res)

    def __call__(self, x, t, labels=None, low_res=None):
        x = x.double()
        if low_res is not None:
            low_res = F.interpolate(low_res.double(), x.shape[2:], mode="bilinear")
            x = torch.cat([x, low_res], dim=1)
        emb = self._time(t)
        if self.classes is not None:
            emb = emb + self._w("label_emb.weight", self.classes, 4 * self.channels)[labels]
        widths = [int(each * self.channels) for each in self.mult]
        h, skips, ds = self._conv("input_blocks.0.0", x, widths[0]), [], 1
        skips.append(h)
        number = 1
        for level, width in enumerate(widths):
            for _ in range(self.res_blocks):
                h = self._res(f"input_blocks.{number}.0", h, emb, width)
                if ds in self.attention_ds:
                    h = self._attention(f"input_blocks.{number}.1", h)
                skips.append(h)
                number += 1
            if level < len(widths) - 1:
                name = f"input_blocks.{number}.0"
                if self.resblock_updown:
                    h = self._res(name, h, emb, width, lambda z: F.avg_pool2d(z, 2))
                else:
                    h = self._conv(f"{name}.op", h, width, stride=2)
                skips.append(h)
                ds *= 2
                number += 1
        h = self._res("middle_block.0", h, emb, widths[-1])
        h = self._attention("middle_block.1", h)
        h = self._res("middle_block.2", h, emb, widths[-1])
        number = 0
        for level in reversed(range(len(widths))):
            for place in range(self.res_blocks + 1):
                h = torch.cat([h, skips.pop()], dim=1)
                h = self._res(f"output_blocks.{number}.0", h, emb, widths[level])
                last = 1
                if ds in self.attention_ds:
                    h = self._attention(f"output_blocks.{number}.1", h)
                    last = 2
                if level and place == self.res_blocks:
                    name = f"output_blocks.{number}.{last}"
                    if self.resblock_updown:
                        h = self._res(name, h, emb, widths[level], _twice)
                    else:
                        h = self._conv(f"{name}.conv", _twice(h), widths[level])
                    ds //= 2
                number += 1
        h = F.silu(self._norm("out.0", h))
        return self._conv("out.2", h, 6 if self.learn_sigma else 3)

    def _time(self, t):
        half = self.channels // 2
        freqs = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32) / half)
        args = t.float()[:, None] * freqs[None]  # in float32, as published
        emb = torch.cat([args.cos(), args.sin()], dim=1).double()
        dim = 4 * self.channels
        return self._linear("time_embed.2", F.silu(self._linear("time_embed.0", emb, dim)), dim)

    def _res(self, name, x, emb, width, resample=lambda z: z):
        h = resample(F.silu(self._norm(f"{name}.in_layers.0", x)))
        h = self._conv(f"{name}.in_layers.2", h, width)
        rows = 2 * width if self.scale_shift else width
        e = self._linear(f"{name}.emb_layers.1", F.silu(emb), rows)[:, :, None, None]
        if self.scale_shift:
            h = self._norm(f"{name}.out_layers.0", h) * (1 + e[:, :width]) + e[:, width:]
        else:
            h = self._norm(f"{name}.out_layers.0", h + e)
        h = self._conv(f"{name}.out_layers.3", F.silu(h), width)
        x = resample(x)
        if x.shape[1] != width:
            x = self._conv(f"{name}.skip_connection", x, width, kernel=1)
        return x + h

    def _attention(self, name, x):
        b, c = x.shape[:2]
        flat = self._norm(f"{name}.norm", x).reshape(b, c, -1)
        qkv = self._w(f"{name}.qkv.weight", 3 * c, c, 1)[:, :, 0] @ flat
        qkv = qkv + self._w(f"{name}.qkv.bias", 3 * c)[:, None]
        heads = self.heads if self.head_channels is None else c // self.head_channels
        d, results = c // heads, []
        for head in range(heads):
            if self.new_order:
                rows = [torch.arange(d) + part * c + head * d for part in range(3)]
            else:
                rows = [torch.arange(d) + head * 3 * d + part * d for part in range(3)]
            q, k, v = (qkv[:, each] for each in rows)
            weight = (q.transpose(1, 2) @ k / math.sqrt(d)).softmax(dim=-1)
            results.append(v @ weight.transpose(1, 2))
        h = self._w(f"{name}.proj_out.weight", c, c, 1)[:, :, 0] @ torch.cat(results, dim=1)
        h = h + self._w(f"{name}.proj_out.bias", c)[:, None]
        return x + h.reshape(x.shape)

    def _norm(self, name, x):
        c = x.shape[1]
        weight = 1 + self._w(f"{name}.weight", c) if f"{name}.weight" not in self.weights else None
        if weight is not None:
            self.weights[f"{name}.weight"] = weight
        parts = x.reshape(x.shape[0], GROUPS, -1)
        mean = parts.mean(dim=-1, keepdim=True)
        variance = ((parts - mean) ** 2).mean(dim=-1, keepdim=True)
        normed = ((parts - mean) / (variance + self.eps).sqrt()).reshape(x.shape)
        scale, shift = self.weights[f"{name}.weight"], self._w(f"{name}.bias", c)
        return normed * scale[:, None, None] + shift[:, None, None]

    def _conv(self, name, x, out, *, kernel=3, stride=1):
        weight = self._w(f"{name}.weight", out, x.shape[1], kernel, kernel)
        return F.conv2d(x, weight, self._w(f"{name}.bias", out), stride, kernel // 2)

    def _linear(self, name, x, out):
        return x @ self._w(f"{name}.weight", out, x.shape[1]).T + self._w(f"{name}.bias", out)

    def _w(self, name, *shape):
        if name not in self.weights:
            size = math.prod(shape[1:]) ** -0.5 if len(shape) > 1 else 0.3
            drawn = torch.randn(shape, generator=self._random, dtype=torch.float64)
            self.weights[name] = (drawn * size).float().double()  # as in a file of float32
        return self.weights[name]


def _twice(x):
    return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
