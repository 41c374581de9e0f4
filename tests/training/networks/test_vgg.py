"""LPIPS from files of the published layout, against its definition written out."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from training.checkpoints.lpips import load_lpips
from training.errors import DataError
from training.inversion.features import compare_maps

CONVOLUTIONS = {0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128), 10: (128, 256), 12: (256, 256), 14: (256, 256)}
CONVOLUTIONS |= {17: (256, 512)} | dict.fromkeys((19, 21, 24, 26, 28), (512, 512))
TAPS = (3, 8, 15, 22, 29)
"""Where the published code takes its maps, counted in torchvision's list of layers."""
POOLS = (4, 9, 16, 23)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> tuple[Path, Path]:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("lpips")
    vgg: dict[str, Tensor] = {"classifier.0.weight": torch.zeros(2, 2)}
    for place, (before, after) in CONVOLUTIONS.items():
        vgg[f"features.{place}.weight"] = torch.randn(after, before, 3, 3) * (2 / (9 * before)) ** 0.5
        vgg[f"features.{place}.bias"] = torch.randn(after) * 0.1
    weights = {f"lin{i}.model.1.weight": torch.rand(1, w, 1, 1) for i, w in enumerate((64, 128, 256, 512, 512))}
    torch.save(vgg, folder / "vgg16.pth")
    torch.save(weights, folder / "lin.pth")
    return folder / "vgg16.pth", folder / "lin.pth"


def lpips(vgg: dict[str, Tensor], weights: dict[str, Tensor], a: Tensor, b: Tensor) -> Tensor:
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    x = (torch.cat([a, b]) - shift[:, None, None]) / scale[:, None, None]
    total = torch.zeros(len(a))
    for place in range(30):
        if place in CONVOLUTIONS:
            x = F.conv2d(x, vgg[f"features.{place}.weight"], vgg[f"features.{place}.bias"], padding=1)
        elif place in POOLS:
            x = F.max_pool2d(x, 2, 2)
        else:
            x = x.clamp_min(0)
        if place in TAPS:
            unit = x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)
            gap = (unit[: len(a)] - unit[len(a) :]).square()
            total = total + (gap * weights[f"lin{TAPS.index(place)}.model.1.weight"]).sum(1).mean((1, 2))
    return total


def test_it_is_lpips(files):
    describe = load_lpips(*files)
    a, b = torch.rand(2, 2, 3, 32, 32).mul(2).sub(1).unbind(0)
    ours = compare_maps(describe(a), describe(b))
    torch.testing.assert_close(ours, lpips(*(torch.load(path) for path in files), a, b), rtol=1e-4, atol=1e-5)
    assert ours.min() > 0.01
    assert compare_maps(describe(a), describe(a)).max() == 0


def test_other_files_are_refused_by_name(files, tmp_path):
    vgg, weights = files
    with pytest.raises(DataError, match=r"lin\.pth has no tensor features\.0\.weight"):
        load_lpips(weights, weights)
    state = torch.load(weights) | {"lin2.model.1.weight": torch.zeros(1, 7, 1, 1)}
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(DataError, match=r"lin2\.model\.1\.weight is \[1, 7, 1, 1\], and \[1, 256, 1, 1\]"):
        load_lpips(vgg, tmp_path / "odd.pth")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(DataError, match=r"text\.pth can't be read"):
        load_lpips(vgg, tmp_path / "text.pth")
