import numpy as np
import pytest
import torch
import torch.nn.functional as F

from training.adversarial.augment import (
    FACES,
    OPERATIONS,
    SYM6,
    Adaptation,
    Amounts,
    AugmentStrengths,
    augment,
    build_colours,
    build_geometry,
    move_pictures,
    only,
)
from training.adversarial.draws import Draws, Kind
from training.adversarial.sampling import sample_reflected

SIZE = 32


@pytest.fixture(scope="module")
def pictures():
    """Smooth pictures: what lies between pixels is known well."""
    coarse = torch.rand(4, 3, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    return F.interpolate(coarse, (SIZE, SIZE), mode="bicubic", align_corners=False).clamp(-1, 1)


def draws(step=0, rows=4):
    return Draws(0, Kind.D_REAL, step, np.arange(rows))


def amounts(count=4, **columns):
    """Amounts whose gates are all open; values by column of uniforms (u0 …) and normals (n0 …)."""
    uniforms, normals = np.full((count, 8), 0.5), np.zeros((count, 7))
    for name, value in columns.items():
        (uniforms if name[0] == "u" else normals)[:, int(name[1])] = value
    return Amounts(np.zeros((count, 13)), uniforms, normals)


def moved(pictures, strengths, **columns):
    return move_pictures(pictures, build_geometry(amounts(len(pictures), **columns), strengths, 1.0, SIZE))


def near(got, wanted, rim=0, atol=0.05):
    inner = slice(rim, SIZE - rim)
    return torch.allclose(got[:, :, inner, inner], wanted[:, :, inner, inner], atol=atol)


def test_the_wavelet_is_orthogonal_so_that_nothing_is_lost(pictures):
    taps = np.array(SYM6)
    for shift in range(1, 6):
        assert abs(taps[2 * shift :] @ taps[: -2 * shift]) < 1e-10
    assert np.square(taps).sum() == pytest.approx(1, abs=1e-10)
    noise = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    still = np.tile(np.eye(3), (2, 1, 1))
    assert torch.allclose(move_pictures(noise, still), noise, atol=1e-10)


def test_xflip_mirrors(pictures):
    assert near(moved(pictures, only(xflip=1), u0=0.9), pictures.flip(3), atol=0.08)
    assert near(moved(pictures, only(xflip=1), u0=0.1), pictures, atol=1e-9)


def test_rotate90_turns_by_quarters(pictures):
    for quarters in range(4):
        got = moved(pictures, only(rotate90=1), u1=(quarters + 0.5) / 4)
        assert near(got, torch.rot90(pictures, quarters, (2, 3)), atol=0.08), quarters


def test_xint_moves_by_whole_pixels_and_reflects(pictures):
    got = moved(pictures, only(xint=1), u2=1.0, u3=0.25)  # 4 right, 2 up
    assert torch.allclose(got[:, :, :-2, 4:], pictures[:, :, 2:, :-4], atol=1e-9)
    assert torch.allclose(got[:, :, :-2, :4], pictures[:, :, 2:, :4].flip(3), atol=0.1)


def test_xfrac_moves_by_fractions(pictures):
    got = moved(pictures, only(xfrac=1), n2=0.5 / SIZE / 0.125, n3=0.0)  # half a pixel to the right
    wanted = (pictures + torch.cat([pictures[..., :1], pictures[..., :-1]], 3)) / 2
    assert near(got, wanted, rim=2)
    assert not near(got, pictures, rim=2)


def resample(pictures, matrix):
    grid = F.affine_grid(torch.tensor(matrix, dtype=torch.float64)[None], [1, 3, SIZE, SIZE], align_corners=False)
    grid = grid.expand(len(pictures), -1, -1, -1)
    return F.grid_sample(pictures, grid, mode="bicubic", padding_mode="reflection", align_corners=False)


def test_scale_zooms_about_the_middle(pictures):
    got = moved(pictures, only(scale=1), n0=1 / 0.2 * np.log2(1.5))
    assert near(got, resample(pictures, [[1 / 1.5, 0, 0], [0, 1 / 1.5, 0]]), rim=2)


def test_rotate_turns_by_any_angle(pictures):
    got = moved(pictures, only(rotate=1), u4=0.5, u5=0.5 + 30 / 360)
    c, s = np.cos(np.pi / 6), np.sin(np.pi / 6)
    # seen from the target, the source lies turned the other way
    assert near(got, resample(pictures, [[c, s, 0], [-s, c, 0]]), rim=6, atol=0.08)
    assert not near(got, resample(pictures, [[c, -s, 0], [s, c, 0]]), rim=6, atol=0.08)


def test_aniso_stretches_one_axis_and_shrinks_the_other(pictures):
    got = moved(pictures, only(aniso=1), n1=1 / 0.2 * np.log2(1.25))
    assert near(got, resample(pictures, [[1 / 1.25, 0, 0], [0, 1.25, 0]]), rim=6, atol=0.08)


def tinted(strengths, p=1.0, **columns):
    return build_colours(amounts(1, **columns), strengths, p)[0]


def test_brightness_adds_and_contrast_multiplies():
    colours = tinted(only(brightness=1), n4=1.5)
    np.testing.assert_allclose(colours, np.c_[np.eye(3), np.full(3, 0.3)], atol=1e-12)
    colours = tinted(only(contrast=1), n5=2.0)
    np.testing.assert_allclose(colours, np.c_[2 * np.eye(3), np.zeros(3)], atol=1e-12)


def test_lumaflip_turns_light_to_dark_and_keeps_the_hue():
    flipped = tinted(only(lumaflip=1), u6=0.9)[:, :3]
    np.testing.assert_allclose(flipped @ np.full(3, 0.4), np.full(3, -0.4), atol=1e-12)
    chroma = np.array([1.0, -1.0, 0.0])
    np.testing.assert_allclose(flipped @ chroma, chroma, atol=1e-12)
    np.testing.assert_allclose(tinted(only(lumaflip=1), u6=0.1)[:, :3], np.eye(3), atol=1e-12)


def test_hue_turns_colours_about_grey():
    turned = tinted(only(hue=1), u7=0.5 + 1 / 3)[:, :3]  # a third of a turn
    np.testing.assert_allclose(turned @ np.ones(3), np.ones(3), atol=1e-12)
    np.testing.assert_allclose(sorted(turned @ [1.0, 0, 0]), [0, 0, 1], atol=1e-12)
    assert np.argmax(turned @ [1.0, 0, 0]) != 0


def test_saturation_scales_what_is_not_grey():
    halved = tinted(only(saturation=1), n6=-1.0)[:, :3]
    np.testing.assert_allclose(halved @ np.full(3, 0.7), np.full(3, 0.7), atol=1e-12)
    np.testing.assert_allclose(halved @ [0.9, 0.3, 0.6], [0.75, 0.45, 0.6], atol=1e-12)


def test_with_p_nothing_or_something_happens(pictures):
    same = augment(pictures, draws(), AugmentStrengths(), 0.0)
    assert same is pictures
    for name in OPERATIONS:
        off = augment(pictures, draws(), only(), 1.0)
        on = torch.cat([augment(pictures, draws(step), only(**{name: 1.0}), 1.0) for step in range(4)])
        assert off is pictures
        assert not torch.allclose(on, pictures.repeat(4, 1, 1, 1), atol=1e-3), name
    assert FACES.rotate90 == FACES.lumaflip == FACES.hue == 0


def test_gates_open_for_a_share_p():
    many = Amounts.draw(draws(rows=4000))
    geometry = build_geometry(many, only(scale=1.0), 0.3, SIZE)
    assert np.mean(geometry[:, 0, 0] != 1) == pytest.approx(0.3, abs=0.03)
    geometry = build_geometry(many, only(rotate=1.0), 0.3, SIZE)
    assert np.mean(np.abs(geometry[:, 0, 1]) > 1e-9) == pytest.approx(0.3, abs=0.03)
    assert np.mean(build_colours(many, only(contrast=0.5), 0.3)[:, 0, 0] != 1) == pytest.approx(0.15, abs=0.02)


def test_each_picture_is_augmented_by_its_own_numbers(pictures):
    whole = augment(pictures, draws(), AugmentStrengths(), 0.9)
    parts = [
        augment(pictures[rows], Draws(0, Kind.D_REAL, 0, np.array(rows)), AugmentStrengths(), 0.9)
        for rows in ([0, 2], [3, 1])
    ]
    together = torch.cat(parts)[[0, 3, 1, 2]]
    assert torch.allclose(whole, together, atol=1e-12)


def test_sampling_has_exact_first_and_second_derivatives():
    generator = torch.Generator().manual_seed(1)
    picture = torch.rand(1, 2, 4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    grid = torch.rand(1, 4, 3, 2, generator=generator, dtype=torch.float64) * 2.6 - 1.3
    assert torch.autograd.gradcheck(lambda x: sample_reflected(x, grid), picture)
    assert torch.autograd.gradgradcheck(lambda x: sample_reflected(x, grid).square(), picture)
    wanted = F.grid_sample(picture, grid, padding_mode="reflection", align_corners=True)
    assert torch.equal(sample_reflected(picture, grid), wanted)


def test_gradients_of_gradients_pass_through_the_whole_augmentation():
    torch.manual_seed(2)
    small = torch.rand(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)

    def judge(x):
        return augment(x, draws(1, 2), AugmentStrengths(), 0.8).square().sum((1, 2, 3))

    assert torch.autograd.gradgradcheck(judge, small, atol=1e-4, fast_mode=True)


def test_p_follows_the_sign_of_real_scores():
    steering = Adaptation(target=0.6, interval=2, speed_kimg=0.1)
    for step in range(4):
        steering.note(9.0, 10, step)
    assert steering.r_t == 0.9
    assert steering.p == pytest.approx(0.4)  # twice 20 pictures of 100
    for step in range(4, 20):
        steering.note(2.0, 10, step)
    assert steering.p == 0
    copy = Adaptation(target=0.6, interval=2, speed_kimg=0.1)
    steering.note(10.0, 10, 20)
    copy.load_state(steering.state())
    copy.note(10.0, 10, 21)
    steering.note(10.0, 10, 21)
    assert copy.p == steering.p == pytest.approx(0.2)
    fixed = Adaptation(target=0.0, p=0.3)
    fixed.note(10.0, 10, 3)
    assert fixed.p == 0.3
