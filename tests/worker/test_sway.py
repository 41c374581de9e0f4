"""A job that asks for a still head gets one, from the bundle that ships."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from model.animator import Animator
from services.jobs.contract import AnimationOptions
from worker.animation import make_video
from worker.events import Order
from worker.playback import read_frames

BUNDLE = Path(__file__).parents[2] / "bundles" / "human"
FRAMES = 13


def test_sway_false_keeps_the_head_still(tmp_path: Path):
    animator = Animator.from_bundle(BUNDLE, threads=1)
    films = {}
    for name, wanted in (("swaying", {}), ("still", {"sway": False})):
        scratch = tmp_path / name
        scratch.mkdir()
        asked = {"prompt": "smiling", "source": "sampled", "frames": FRAMES, "output": {"format": "apng"}, **wanted}
        order = Order("anm_1", BUNDLE, None, AnimationOptions.model_validate(asked), 1, scratch)
        done = make_video(animator, order, lambda _: None, lambda: None)
        films[name] = np.stack(list(read_frames(done.video.path))).astype(float)
    swaying, still = films["swaying"], films["still"]
    crown = slice(0, swaying.shape[1] // 4)  # hair and background: no smile reaches them

    def moved(film: np.ndarray) -> float:
        return float(np.abs(film[:, crown] - film[:1, crown]).mean(axis=(1, 2, 3)).max())

    assert moved(still) < 0.5 * moved(swaying)
    assert np.abs(swaying[-1] - still[-1]).mean() < 0.5  # the last frame is the same smile
    assert np.abs(still[-1] - still[0]).mean() > 1.0
