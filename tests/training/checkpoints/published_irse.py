"""e4e, pSp and ir_se50 as they were published: their tensors' names and shapes, and their forward passes.

Written from the definitions, slowly and in double precision, over a plain dictionary of tensors by published names;
it shares nothing with the networks that it judges.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]
GENUINE = (64, 128, 256, 512)
NARROW = (16, 32, 48, 64)
UNITS = (3, 4, 14, 3)


def norm(name: str, channels: int) -> Shapes:
    parts = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{part}": (channels,) for part in parts} | {f"{name}.num_batches_tracked": ()}


def list_body(widths: tuple[int, ...] = GENUINE, channels: int = 3, squeezed: bool = True) -> Shapes:
    shapes: Shapes = {"input_layer.0.weight": (widths[0], channels, 3, 3)}
    shapes |= norm("input_layer.1", widths[0]) | {"input_layer.2.weight": (widths[0],)}
    place, before = 0, widths[0]
    for width, count in zip(widths, UNITS, strict=True):
        for _ in range(count):
            unit = f"body.{place}"
            if before != width:
                shapes |= {f"{unit}.shortcut_layer.0.weight": (width, before, 1, 1)}
                shapes |= norm(f"{unit}.shortcut_layer.1", width)
            shapes |= norm(f"{unit}.res_layer.0", before)
            shapes |= {f"{unit}.res_layer.1.weight": (width, before, 3, 3), f"{unit}.res_layer.2.weight": (width,)}
            shapes |= {f"{unit}.res_layer.3.weight": (width, width, 3, 3)}
            shapes |= norm(f"{unit}.res_layer.4", width)
            if squeezed:
                shapes |= {f"{unit}.res_layer.5.fc1.weight": (width // 16, width, 1, 1)}
                shapes |= {f"{unit}.res_layer.5.fc2.weight": (width, width // 16, 1, 1)}
            place, before = place + 1, width
    return shapes


def list_encoder(
    stylegan_size: int, widths: tuple[int, ...] = GENUINE, w_dim: int = 512, input_size: int = 256
) -> Shapes:
    """Name what an Encoder4Editing or a GradualStyleEncoder has for a generator's size; both look at 256 px."""
    shapes = list_body(widths)
    for row in range(2 * stylegan_size.bit_length() - 4):
        edge = input_size // (16 if row < 3 else 8 if row < 7 else 4)
        for conv in range(edge.bit_length() - 1):
            name = f"styles.{row}.convs.{2 * conv}"
            shapes |= {f"{name}.weight": (w_dim, w_dim if conv else widths[3], 3, 3), f"{name}.bias": (w_dim,)}
        shapes |= {f"styles.{row}.linear.weight": (w_dim, w_dim), f"styles.{row}.linear.bias": (w_dim,)}
    for name, width in (("latlayer1", widths[2]), ("latlayer2", widths[1])):
        shapes |= {f"{name}.weight": (widths[3], width, 1, 1), f"{name}.bias": (widths[3],)}
    return shapes


def list_ir_se50(widths: tuple[int, ...] = GENUINE, features: int = 512) -> Shapes:
    shapes = list_body(widths) | norm("output_layer.0", widths[3])
    shapes |= {"output_layer.3.weight": (features, widths[3] * 49), "output_layer.3.bias": (features,)}
    return shapes | norm("output_layer.4", features)


def draw(shapes: Shapes, seed: int = 0) -> State:
    """Draw weights under which numbers stay of one size from the first layer to the last."""
    random = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
            continue
        noise = torch.randn(shape, generator=random)
        if "linear" in name and name.endswith("weight"):
            state[name] = noise
        elif len(shape) > 1:
            state[name] = noise * (2 / noise[0].numel()) ** 0.5
        elif name.endswith("running_var"):
            state[name] = noise.abs() + 0.5
        elif name.endswith("res_layer.4.weight"):
            state[name] = 0.2 + 0.1 * noise  # so that two dozen units in a row don't add up to chaos
        else:
            state[name] = 0.2 * noise + (0.8 if name.endswith("weight") else 0.0)
    return state


class Published:
    """The published forward passes."""

    def __init__(self, state: State) -> None:
        self.state = {name: value.double() for name, value in state.items()}

    def get(self, *names: str) -> list[Tensor]:
        return [self.state[name] for name in names]

    def norm(self, x: Tensor, name: str) -> Tensor:
        weight, bias, mean, variance = (
            self.state[f"{name}.{part}"].view(-1, *[1] * (x.ndim - 2))
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        return (x - mean) / torch.sqrt(variance + 1e-5) * weight + bias

    def prelu(self, x: Tensor, name: str) -> Tensor:
        slopes = self.state[f"{name}.weight"].view(-1, 1, 1)
        return torch.where(x > 0, x, slopes * x)

    def unit(self, x: Tensor, name: str, stride: int) -> Tensor:
        if f"{name}.shortcut_layer.0.weight" in self.state:
            shortcut = F.conv2d(x, self.state[f"{name}.shortcut_layer.0.weight"], stride=stride)
            shortcut = self.norm(shortcut, f"{name}.shortcut_layer.1")
        else:
            shortcut = F.max_pool2d(x, 1, stride)
        y = self.norm(x, f"{name}.res_layer.0")
        y = self.prelu(F.conv2d(y, self.state[f"{name}.res_layer.1.weight"], padding=1), f"{name}.res_layer.2")
        y = F.conv2d(y, self.state[f"{name}.res_layer.3.weight"], stride=stride, padding=1)
        y = self.norm(y, f"{name}.res_layer.4")
        squeeze, excite = self.get(f"{name}.res_layer.5.fc1.weight", f"{name}.res_layer.5.fc2.weight")
        hidden = torch.relu(y.flatten(2).mean(2) @ squeeze[:, :, 0, 0].t())
        gate = 1 / (1 + torch.exp(-hidden @ excite[:, :, 0, 0].t()))
        return y * gate[:, :, None, None] + shortcut

    def body(self, x: Tensor) -> list[Tensor]:
        """Give what comes out of every unit."""
        x = F.conv2d(x, self.state["input_layer.0.weight"], padding=1)
        x = self.prelu(self.norm(x, "input_layer.1"), "input_layer.2")
        strides = [2 if place == 0 else 1 for count in UNITS for place in range(count)]
        found = []
        for place, stride in enumerate(strides):
            x = self.unit(x, f"body.{place}", stride)
            found.append(x)
        return found

    def style(self, x: Tensor, row: int) -> Tensor:
        place = 0
        while f"styles.{row}.convs.{place}.weight" in self.state:
            weight, bias = self.get(f"styles.{row}.convs.{place}.weight", f"styles.{row}.convs.{place}.bias")
            x = F.conv2d(x, weight, bias, stride=2, padding=1)
            x = torch.where(x > 0, x, 0.01 * x)
            place += 2
        weight, bias = self.get(f"styles.{row}.linear.weight", f"styles.{row}.linear.bias")
        return x.reshape(-1, weight.shape[1]) @ (weight / weight.shape[1] ** 0.5).t() + bias

    def lateral(self, small: Tensor, large: Tensor, name: str) -> Tensor:
        large = F.conv2d(large, *self.get(f"{name}.weight", f"{name}.bias"))
        height, width = (spread(a, b) for a, b in zip(small.shape[2:], large.shape[2:], strict=True))
        return height @ small @ width.t() + large

    def codes(self, image: Tensor, deltas: bool) -> Tensor:
        """Encode by Encoder4Editing (deltas) at its last progressive stage, 18, or by GradualStyleEncoder."""
        units = self.body(image.double())
        c1, c2, c3 = units[6], units[20], units[23]
        p2 = self.lateral(c3, c2, "latlayer1")
        p1 = self.lateral(p2, c1, "latlayer2")
        rows = len([name for name in self.state if name.startswith("styles.") and name.endswith("linear.weight")])
        styles = [self.style(c3 if row < 3 else p2 if row < 7 else p1, row) for row in range(rows)]
        if not deltas:
            return torch.stack(styles, 1)
        w = styles[0][:, None].repeat(1, rows, 1)
        for row in range(1, min(18 + 1, rows)):
            w[:, row] += styles[row]
        return w

    def identity(self, face: Tensor) -> Tensor:
        x = self.norm(self.body(face.double())[-1], "output_layer.0").flatten(1)
        weight, bias = self.get("output_layer.3.weight", "output_layer.3.bias")
        x = self.norm(x @ weight.t() + bias, "output_layer.4")
        return x / x.norm(dim=1, keepdim=True)


def spread(before: int, after: int) -> Tensor:
    """Give linear interpolation of an axis, its first and last places kept (align_corners): [after,before]."""
    matrix = torch.zeros(after, before, dtype=torch.float64)
    for place in range(after):
        where = place * (before - 1) / (after - 1)
        left = min(int(where), before - 2)
        matrix[place, left] += 1 - (where - left)
        matrix[place, left + 1] += where - left
    return matrix


def pool(x: Tensor, size: int) -> Tensor:
    """Average over the bins of AdaptiveAvgPool2d, which overlap where the sizes don't divide."""
    edge = x.shape[-1]
    bins = [(i * edge // size, -(-(i + 1) * edge // size)) for i in range(size)]
    rows = torch.stack([x[:, :, a:b].mean(2) for a, b in bins], 2)
    return torch.stack([rows[..., a:b].mean(3) for a, b in bins], 3)
