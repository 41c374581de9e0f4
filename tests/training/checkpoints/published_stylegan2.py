"""StyleGAN2 as it was published, for tests alone: what a picture is by definition, and how NVIDIA's files are built.

Two things that owe nothing to the code under test. `draw` and `map_z` compute in float64, tap by tap, on the tensors
by NVIDIA's own names, in the order of the published networks: modulate, demodulate, spread, filter, convolve, noise,
bias, leaky ReLU, gain, bound. `Generator` and its parts carry the attributes of `networks_stylegan2` and pickle by the
protocol of `torch_utils.persistence`, with the real pickle module.
Source: NVlabs/stylegan3 (`training/networks_stylegan2.py`, `torch_utils/ops`) and rosinality/stylegan2-pytorch.
"""

import sys
import types
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Array = NDArray[np.float64]
State = Mapping[str, Tensor]
TAPS = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64


def filter2d(x: Array, kernel: Array, before: int, after: int) -> Array:
    """Pad on both sides and convolve in the true sense: the kernel is turned around."""
    x = np.pad(x, ((0, 0), (0, 0), (before, after), (before, after)))
    size = len(kernel)
    height, width = x.shape[2] - size + 1, x.shape[3] - size + 1
    return sum(
        kernel[size - 1 - i, size - 1 - j] * x[:, :, i : i + height, j : j + width]
        for i in range(size)
        for j in range(size)
    )


def spread(x: Array) -> Array:
    """Put a zero behind every value, in rows and columns."""
    wide = np.zeros((*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3]))
    wide[:, :, ::2, ::2] = x
    return wide


def upsample(x: Array) -> Array:
    """Double a picture: `upfirdn2d.upsample2d` with gain 4."""
    return filter2d(spread(x), TAPS * 4, 2, 1)


def correlate(x: Array, weight: Array) -> Array:
    """Correlate each picture with its own weights [N,out,in,k,k], without padding."""
    size = weight.shape[-1]
    height, width = x.shape[2] - size + 1, x.shape[3] - size + 1
    return sum(
        np.einsum("noi,nihw->nohw", weight[..., i, j], x[:, :, i : i + height, j : j + width])
        for i in range(size)
        for j in range(size)
    )


def double_as_nvidia(x: Array, weight: Array) -> Array:
    """`conv2d_resample(up=2, padding=1, flip_weight=False)` by its generic path: spread, filter, convolve truly."""
    return correlate(filter2d(spread(x), TAPS * 4, 3, 2), weight[..., ::-1, ::-1])


def double_as_rosinality(x: Array, weight: Array) -> Array:
    """`conv_transpose2d(stride=2)`, every value laying down a stamp of the weights, and then `Blur(pad=(1, 1))`."""
    batch, _, height, width = x.shape
    y = np.zeros((batch, weight.shape[1], 2 * height + 1, 2 * width + 1))
    for i in range(3):
        for j in range(3):
            stamp = np.einsum("noi,nihw->nohw", weight[..., i, j], x)
            y[:, :, i : i + 2 * height : 2, j : j + 2 * width : 2] += stamp
    return filter2d(y, TAPS * 4, 1, 1)


def lrelu(x: Array) -> Array:
    return np.where(x > 0, x, 0.2 * x) * np.sqrt(2)


def bound(x: Array, limit: float | None, gain: float = 1.0) -> Array:
    return x if limit is None else np.clip(x, -limit * gain, limit * gain)


class Drawing:
    """The synthesis of one state dict by NVIDIA's names."""

    def __init__(self, state: State, conv_clamp: float | None, double: Any = double_as_nvidia) -> None:
        self.state = {name: value.double().numpy() for name, value in state.items()}
        self.conv_clamp, self.double = conv_clamp, double

    def style(self, layer: str, w: Array) -> Array:
        weight = self.state[f"{layer}.affine.weight"]
        return w @ weight.T / np.sqrt(weight.shape[1]) + self.state[f"{layer}.affine.bias"]

    def convolve(self, layer: str, x: Array, w: Array, up: bool, gain: float = 1.0) -> Array:
        # no gain of the weights here: the demodulation would divide it out
        modulated = self.state[f"{layer}.weight"][None] * self.style(layer, w)[:, None, :, None, None]
        modulated = modulated / np.sqrt((modulated**2).sum((2, 3, 4), keepdims=True) + 1e-8)
        x = self.double(x, modulated) if up else correlate(np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), modulated)
        if f"{layer}.noise_const" in self.state:
            x = x + self.state[f"{layer}.noise_const"] * self.state[f"{layer}.noise_strength"]
        x = lrelu(x + self.state[f"{layer}.bias"][:, None, None]) * gain
        return bound(x, self.conv_clamp, gain)

    def to_rgb(self, block: str, x: Array, w: Array) -> Array:
        weight = self.state[f"{block}.torgb.weight"]
        styles = self.style(f"{block}.torgb", w) / np.sqrt(weight.shape[1])
        rgb = correlate(x, weight[None] * styles[:, None, :, None, None])
        return bound(rgb + self.state[f"{block}.torgb.bias"][:, None, None], self.conv_clamp)

    def run(self, ws: Array) -> Array:
        """Shapes: ws [N,num_ws,w_dim] → [N,3,R,R]."""
        x = np.repeat(self.state["synthesis.b4.const"][None], len(ws), 0)
        image, row, size = None, 0, 4
        while f"synthesis.b{size}.conv1.weight" in self.state:
            block = f"synthesis.b{size}"
            if size == 4:
                x = self.convolve(f"{block}.conv1", x, ws[:, row], up=False)
                row += 1
            else:
                x = self.run_block(block, x, ws[:, row], ws[:, row + 1])
                row += 2
            image = upsample(image) if image is not None else None
            if f"{block}.torgb.weight" in self.state:
                drawn = self.to_rgb(block, x, ws[:, row])
                image = drawn if image is None else image + drawn
            size *= 2
        assert image is not None
        assert row + 1 == ws.shape[1]
        return image

    def run_block(self, block: str, x: Array, first: Array, second: Array) -> Array:
        if f"{block}.skip.weight" not in self.state:
            return self.convolve(f"{block}.conv1", self.convolve(f"{block}.conv0", x, first, up=True), second, up=False)
        weight = self.state[f"{block}.skip.weight"]
        shortcut = upsample(correlate(x, np.repeat(weight[None], len(x), 0) / np.sqrt(weight.shape[1])))
        y = self.convolve(f"{block}.conv0", x, first, up=True)
        return shortcut * np.sqrt(0.5) + self.convolve(f"{block}.conv1", y, second, up=False, gain=np.sqrt(0.5))


def draw(state: State, ws: Tensor, conv_clamp: float | None = 256, double: Any = double_as_nvidia) -> Tensor:
    """Draw as the published synthesis does with noise_mode const.

    Shapes: ws [N,num_ws,w_dim] → [N,3,R,R].
    """
    return torch.from_numpy(Drawing(state, conv_clamp, double).run(ws.double().numpy())).float()


def map_z(state: State, z: Tensor, c: Tensor | None = None, psi: float = 1.0, lr_multiplier: float = 0.01) -> Tensor:
    """Map as the published mapping does, for one row of ws.

    Shapes: z [N,z_dim], c [N,c_dim] → w [N,w_dim].
    """

    def normalize(x: Array) -> Array:
        return x / np.sqrt((x**2).mean(1, keepdims=True) + 1e-8)

    numbers = {name: value.double().numpy() for name, value in state.items() if name.startswith("mapping.")}
    x = normalize(z.double().numpy())
    if c is not None:
        weight = numbers["mapping.embed.weight"]
        y = c.double().numpy() @ weight.T / np.sqrt(weight.shape[1]) + numbers["mapping.embed.bias"]
        x = np.concatenate([x, normalize(y)], 1)
    layer = 0
    while f"mapping.fc{layer}.weight" in numbers:
        weight = numbers[f"mapping.fc{layer}.weight"] * lr_multiplier
        x = lrelu(x @ weight.T / np.sqrt(weight.shape[1]) + numbers[f"mapping.fc{layer}.bias"] * lr_multiplier)
        layer += 1
    if psi != 1:
        x = numbers["mapping.w_avg"] + psi * (x - numbers["mapping.w_avg"])
    return torch.from_numpy(x).float()


class EasyDict(dict[str, Any]):
    """As `dnnlib.util.EasyDict` stands in the files."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def _reconstruct_persistent_obj(meta: Any) -> Any:
    raise AssertionError(f"an object of {meta['class_name']} was rebuilt by the code that its file names")


class Persistent(nn.Module):
    """Pickles as a class under `persistence.persistent_class` does: by its source, its name and its `__dict__`."""

    module_src: ClassVar[str] = "import os\nraise AssertionError('code of the file ran')\n"

    def __reduce__(self) -> Any:
        fields: list[Any] = list(super().__reduce__())
        state = fields[2]
        meta = {"type": "class", "version": 6, "module_src": self.module_src, "class_name": type(self).__name__}
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, ({**meta, "state": state},), None


class FullyConnectedLayer(Persistent):
    def __init__(self, inputs: int, outputs: int, activation: str = "linear", lr_multiplier: float = 1.0) -> None:
        super().__init__()
        self.in_features, self.out_features, self.activation = inputs, outputs, activation
        self.weight_gain, self.bias_gain = lr_multiplier / np.sqrt(inputs), lr_multiplier
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr_multiplier)
        self.bias = nn.Parameter(torch.randn(outputs) * 0.3 / lr_multiplier + (activation == "linear"))


class SynthesisLayer(Persistent):
    def __init__(self, inputs: int, outputs: int, w_dim: int, size: int, up: int, noise: bool, clamp: Any) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.resolution, self.up = inputs, outputs, size, up
        self.use_noise, self.activation, self.conv_clamp, self.act_gain = noise, "lrelu", clamp, np.sqrt(2)
        self.register_buffer("resample_filter", torch.from_numpy(TAPS).float())
        self.affine = FullyConnectedLayer(w_dim, inputs)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3).to(memory_format=torch.channels_last))
        if noise:
            self.register_buffer("noise_const", torch.randn(size, size))
            self.noise_strength = nn.Parameter(torch.randn([]) * 0.5)
        self.bias = nn.Parameter(torch.randn(outputs))


class ToRGBLayer(Persistent):
    def __init__(self, inputs: int, w_dim: int, clamp: Any) -> None:
        super().__init__()
        self.in_channels, self.conv_clamp, self.weight_gain = inputs, clamp, 1 / np.sqrt(inputs)
        self.affine = FullyConnectedLayer(w_dim, inputs)
        self.weight = nn.Parameter(torch.randn(3, inputs, 1, 1))
        self.bias = nn.Parameter(torch.randn(3))


class Conv2dLayer(Persistent):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.activation, self.up, self.conv_clamp, self.bias = "linear", 2, None, None
        self.register_buffer("resample_filter", torch.from_numpy(TAPS).float())
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 1, 1))


class SynthesisBlock(Persistent):
    def __init__(
        self, inputs: int, outputs: int, w_dim: int, size: int, last: bool, architecture: str, noise: bool, clamp: Any
    ) -> None:
        super().__init__()
        self.in_channels, self.resolution, self.is_last, self.architecture = inputs, size, last, architecture
        self.use_fp16, self.fused_modconv_default = size > 8, "inference_only"
        self.register_buffer("resample_filter", torch.from_numpy(TAPS).float())
        if not inputs:
            self.const = nn.Parameter(torch.randn(outputs, size, size))
        else:
            self.conv0 = SynthesisLayer(inputs, outputs, w_dim, size, 2, noise, clamp)
        self.conv1 = SynthesisLayer(outputs, outputs, w_dim, size, 1, noise, clamp)
        if last or architecture == "skip":
            self.torgb = ToRGBLayer(outputs, w_dim, clamp)
        if inputs and architecture == "resnet":
            self.skip = Conv2dLayer(inputs, outputs)


class SynthesisNetwork(Persistent):
    def __init__(self, w_dim: int, channels: tuple[int, ...], architecture: str, noise: bool, clamp: Any) -> None:
        super().__init__()
        self.w_dim, self.img_resolution, self.num_fp16_res = w_dim, 2 << len(channels), 4
        self.block_resolutions = [4 << level for level in range(len(channels))]
        for i, size in enumerate(self.block_resolutions):
            inputs, last = (channels[i - 1] if i else 0), i == len(channels) - 1
            block = SynthesisBlock(inputs, channels[i], w_dim, size, last, architecture, noise, clamp)
            setattr(self, f"b{size}", block)


class MappingNetwork(Persistent):
    def __init__(
        self, z_dim: int, c_dim: int, w_dim: int, layers: int, lr_multiplier: float, hidden: int, embed: int
    ) -> None:
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim, self.num_layers, self.w_avg_beta = z_dim, c_dim, w_dim, layers, 0.998
        if c_dim:
            self.embed = FullyConnectedLayer(c_dim, embed)
        for i in range(layers):
            inputs, outputs = hidden if i else z_dim + (embed if c_dim else 0), hidden if i < layers - 1 else w_dim
            setattr(self, f"fc{i}", FullyConnectedLayer(inputs, outputs, "lrelu", lr_multiplier))
        self.register_buffer("w_avg", torch.randn(w_dim))


class Generator(Persistent):
    """A generator with random weights, seeded by the caller."""

    def __init__(
        self,
        channels: tuple[int, ...] = (6, 5, 4),
        z_dim: int = 7,
        c_dim: int = 0,
        w_dim: int = 9,
        layers: int = 2,
        architecture: str = "skip",
        noise: bool = True,
        conv_clamp: float | None = 256,
        lr_multiplier: float = 0.01,
        hidden: int | None = None,  # layer_features
        embed: int | None = None,  # embed_features
    ) -> None:
        super().__init__()
        self._init_args, self._init_kwargs = (), EasyDict(mapping_kwargs=EasyDict(num_layers=layers))
        self.z_dim, self.c_dim, self.w_dim, self.num_ws = z_dim, c_dim, w_dim, 2 * len(channels)
        self.synthesis = SynthesisNetwork(w_dim, channels, architecture, noise, conv_clamp)
        self.mapping = MappingNetwork(z_dim, c_dim, w_dim, layers, lr_multiplier, hidden or w_dim, embed or w_dim)


def as_snapshot(generator: nn.Module) -> dict[str, Any]:
    """Give what a training run of NVIDIA's pickles."""
    averaged = generator.eval().requires_grad_(False)
    settings = EasyDict(class_name="training.dataset.ImageFolderDataset", path="/data/faces.zip", xflip=True)
    return {"G": averaged, "D": None, "G_ema": averaged, "augment_pipe": None, "training_set_kwargs": settings}


@pytest.fixture
def nvidia_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make NVIDIA's modules importable under their names, so that the real pickle writes those names."""
    persistence = types.ModuleType("torch_utils.persistence")
    function = types.FunctionType(
        _reconstruct_persistent_obj.__code__, persistence.__dict__, "_reconstruct_persistent_obj"
    )
    function.__module__ = "torch_utils.persistence"
    persistence._reconstruct_persistent_obj = function  # type: ignore[attr-defined]
    package, util = types.ModuleType("torch_utils"), types.ModuleType("dnnlib.util")
    util.EasyDict = EasyDict  # type: ignore[attr-defined]
    for name, module in {
        "torch_utils": package,
        "torch_utils.persistence": persistence,
        "dnnlib": types.ModuleType("dnnlib"),
        "dnnlib.util": util,
    }.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(EasyDict, "__module__", "dnnlib.util")


def as_rosinality(state: State) -> dict[str, Tensor]:
    """Give the tensors of a skip generator by rosinality's names and in its shapes."""
    kernel = torch.from_numpy(TAPS * 4).float()
    ours = {"input.input": state["synthesis.b4.const"][None]}
    for i in range(sum(name.startswith("mapping.fc") for name in state) // 2):
        for part in ("weight", "bias"):
            ours[f"style.{i + 1}.{part}"] = state[f"mapping.fc{i}.{part}"]
    sizes = sorted({int(name.split(".")[1][1:]) for name in state if name.startswith("synthesis.b")})
    index = 0
    for size in sizes:
        for conv in ("conv1",) if size == 4 else ("conv0", "conv1"):
            theirs, name = f"synthesis.b{size}.{conv}", "conv1" if size == 4 else f"convs.{index - 1}"
            _rename_conv(ours, state, theirs, name)
            ours[f"{name}.noise.weight"] = state[f"{theirs}.noise_strength"].reshape(1)
            ours[f"{name}.activate.bias"] = state[f"{theirs}.bias"]
            ours[f"noises.noise_{index}"] = state[f"{theirs}.noise_const"][None, None]
            if conv == "conv0":
                ours[f"{name}.conv.blur.kernel"] = kernel
            index += 1
        name = "to_rgb1" if size == 4 else f"to_rgbs.{sizes.index(size) - 1}"
        _rename_conv(ours, state, f"synthesis.b{size}.torgb", name)
        ours[f"{name}.bias"] = state[f"synthesis.b{size}.torgb.bias"].reshape(1, 3, 1, 1)
        if size > 4:
            ours[f"{name}.upsample.kernel"] = kernel
    return ours


def _rename_conv(ours: dict[str, Tensor], state: State, theirs: str, name: str) -> None:
    ours[f"{name}.conv.weight"] = state[f"{theirs}.weight"][None]
    ours[f"{name}.conv.modulation.weight"] = state[f"{theirs}.affine.weight"]
    ours[f"{name}.conv.modulation.bias"] = state[f"{theirs}.affine.bias"]
