import numpy as np
import pytest
import torch
from torch import nn

from training.errors import DataError
from training.metrics.features import load_inception, to_bytes, use_discriminator, use_trunk
from training.metrics.frechet import Moments, frechet_distance, frechet_of, kernel_distance, measure_moments, root_trace
from training.metrics.inception import Inception
from training.networks.encoder import Trunk
from training.networks.stylegan2 import build_discriminator

CPU = torch.device("cpu")


def spd(rng, size):
    root = rng.standard_normal((size, size))
    return root @ root.T / size


def test_two_bells_on_a_line_have_the_closed_form():
    first = Moments(9, np.array([1.5]), np.array([[4.0]]))
    second = Moments(9, np.array([-0.5]), np.array([[0.25]]))
    assert frechet_distance(first, second) == pytest.approx(2.0**2 + (2.0 - 0.5) ** 2, abs=1e-12)


def test_covariances_with_the_same_axes_have_the_closed_form():
    rng = np.random.default_rng(1)
    axes, _ = np.linalg.qr(rng.standard_normal((7, 7)))
    a, b, shift = rng.uniform(0.1, 3, 7), rng.uniform(0.1, 3, 7), rng.standard_normal(7)
    first = Moments(9, shift, axes * a @ axes.T)
    second = Moments(9, np.zeros(7), axes * b @ axes.T)
    wanted = np.square(shift).sum() + np.square(np.sqrt(a) - np.sqrt(b)).sum()
    assert frechet_distance(first, second) == pytest.approx(wanted, rel=1e-10)


def test_the_root_of_a_product_agrees_with_its_eigenvalues():
    rng = np.random.default_rng(2)
    first, second = spd(rng, 12), spd(rng, 12)
    wanted = np.sqrt(np.linalg.eigvals(first @ second).astype(complex)).sum().real
    assert root_trace(first, second) == pytest.approx(wanted, rel=1e-9)
    assert root_trace(first, second) == pytest.approx(root_trace(second, first), rel=1e-9)


def test_fewer_pictures_than_features_still_give_a_distance():
    rng = np.random.default_rng(3)
    x = rng.standard_normal((20, 64)).astype(np.float32)
    assert frechet_of(x, x) == pytest.approx(0, abs=1e-5)
    # a shift alone adds its square, whatever the covariance
    assert frechet_of(x, x + 0.5) == pytest.approx(64 * 0.25, rel=1e-4)


def test_moments_are_those_of_numpy_and_bad_features_are_refused():
    x = np.random.default_rng(4).standard_normal((50, 5)).astype(np.float32) * 3 + 100
    moments = measure_moments(x)
    np.testing.assert_allclose(moments.covariance, np.cov(x.astype(np.float64), rowvar=False), rtol=1e-9)
    with pytest.raises(ValueError, match="not finite"):
        measure_moments(np.full((3, 2), np.nan))
    with pytest.raises(ValueError, match="at least 2"):
        measure_moments(x[:1])
    with pytest.raises(ValueError, match="5 and 4 numbers"):
        frechet_distance(moments, measure_moments(x[:, :4]))


def test_the_kernel_distance_is_the_unbiased_sum_over_pairs():
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((6, 3)), rng.standard_normal((6, 3)) + 1
    kernel = lambda a, b: (a @ b / 3 + 1) ** 3  # noqa: E731
    inside = sum(kernel(s[i], s[j]) for s in (x, y) for i in range(6) for j in range(6) if i != j) / 30
    across = np.mean([kernel(a, b) for a in x for b in y])
    assert kernel_distance(x, y)[0] == pytest.approx(inside - 2 * across, rel=1e-10)


def test_the_kernel_distance_of_one_distribution_is_about_zero_and_of_two_is_not():
    rng = np.random.default_rng(6)
    x, y, z = (rng.standard_normal((400, 8)) + shift for shift in (0, 0, 0.5))
    assert abs(kernel_distance(x, y, 20, 200)[0]) < 0.1
    assert kernel_distance(x, z, 20, 200)[0] > 0.5
    assert kernel_distance(x, z, 20, 200) == kernel_distance(x, z, 20, 200)


def test_our_own_networks_describe_pictures_of_their_size_and_others():
    torch.manual_seed(0)
    pictures = torch.rand(3, 3, 64, 64) * 2 - 1
    assert use_trunk(Trunk((4, 4, 8, 8, 8), 16)).describe(pictures).shape == (3, 16)
    collected = use_discriminator(build_discriminator(64, (8, 8, 8, 4, 4))).collect([pictures[:2], pictures[2:]])
    assert collected.shape == (3, 8)
    assert collected.dtype == np.float32


def test_inception_has_the_published_shape():
    with torch.device("meta"):
        network = Inception()
    # the published network has 23 834 568 parameters with 1000 classes; this one has 1008
    assert sum(p.numel() for p in network.parameters()) == 23_834_568 + 8 * 2049
    names = network.state_dict()
    assert names["Mixed_7c.branch3x3dbl_3b.conv.weight"].shape == (384, 384, 3, 1)
    assert names["Mixed_6b.branch7x7dbl_4.conv.weight"].shape == (128, 128, 7, 1)


def test_a_state_dict_is_loaded_by_name_and_changes_what_comes_out(tmp_path):
    torch.manual_seed(1)
    with torch.device("meta"):
        network = Inception().eval()
    network = network.to_empty(device="cpu")
    with torch.no_grad():
        for value in network.state_dict().values():  # cheaper than torch's own start
            value.fill_(0.9) if value.ndim < 2 else value.uniform_(-1 / value[0].numel() ** 0.5, 0.05)
    weights = {k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save(weights, tmp_path / "weights.pth")
    features = load_inception(tmp_path / "weights.pth", CPU)
    pictures = torch.rand(1, 3, 40, 40) * 2 - 1
    with torch.no_grad():
        assert torch.equal(features.describe(pictures), network(to_bytes(pictures).float() / 127.5 - 1))
    assert features.name == "inception"


def test_weights_of_another_network_are_refused_by_the_first_tensor(tmp_path):
    first = "Conv2d_1a_3x3.conv.weight"
    torch.save({first: torch.zeros(32, 3, 3, 3)}, tmp_path / "lacking.pth")
    with pytest.raises(DataError, match=r"lacking\.pth has no tensor Conv2d_1a_3x3\.bn\.weight; wanted is"):
        load_inception(tmp_path / "lacking.pth", CPU)
    torch.save({first: torch.zeros(64, 3, 7, 7)}, tmp_path / "other.pth")
    with pytest.raises(DataError, match=r"conv\.weight is \[64, 3, 7, 7\] where the network has \[32, 3, 3, 3\]"):
        load_inception(tmp_path / "other.pth", CPU)


class Scripted(nn.Module):
    def __init__(self, features: int):
        super().__init__()
        self.features = features

    def forward(self, img: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        mean = img.float().mean((1, 2, 3))
        return mean[:, None].expand(-1, self.features if return_features else 1008)


def test_a_script_gets_bytes_and_must_give_2048_features(tmp_path):
    torch.jit.script(Scripted(2048)).save(str(tmp_path / "good.pt"))
    features = load_inception(tmp_path / "good.pt", CPU)
    assert features.describe(torch.ones(2, 3, 8, 8)).eq(255).all()
    torch.jit.script(Scripted(12)).save(str(tmp_path / "narrow.pt"))
    with pytest.raises(DataError, match=r"narrow\.pt gives no 2048 features"):
        load_inception(tmp_path / "narrow.pt", CPU)
    torch.jit.script(nn.ReLU()).save(str(tmp_path / "relu.pt"))
    with pytest.raises(DataError, match=r"relu\.pt is not the Inception network of FID"):
        load_inception(tmp_path / "relu.pt", CPU)


def test_files_that_are_no_weights_are_refused(tmp_path):
    with pytest.raises(DataError, match="does not exist; wanted is the TorchScript"):
        load_inception(tmp_path / "none.pt", CPU)
    (tmp_path / "page.pt").write_text("<html>not found</html>")
    with pytest.raises(DataError, match=r"page\.pt can't be read as weights"):
        load_inception(tmp_path / "page.pt", CPU)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(DataError, match=r"list\.pth holds no state dict"):
        load_inception(tmp_path / "list.pth", CPU)
