"""What a finished job tells of its own answer: identity always, the prompt's understanding where the bundle can."""

from __future__ import annotations

import json
from pathlib import Path

from model.animator import Animator
from services.jobs.contract import AnimationOptions
from tests.model.test_language import content, with_language
from worker.animation import make_video
from worker.events import Order


def animate(animator: Animator, bundle: Path, scratch: Path) -> dict[str, float | str]:
    scratch.mkdir()
    options = AnimationOptions.model_validate({"prompt": "smiling", "source": "sampled", "frames": 4})
    done = make_video(animator, Order("anm_1", bundle, None, options, 7, scratch), lambda _: None, lambda: None)
    assert done.quality is not None
    json.dumps(done.quality)  # it is stored and answered as JSON
    return dict(done.quality)


def test_the_result_tells_what_was_understood(tiny_bundle: Path, tmp_path: Path):
    plain = Animator.from_bundle(tiny_bundle, threads=1)
    before = animate(plain, tiny_bundle, tmp_path / "plain-job")
    assert set(before) == {"identity"}
    embed = plain._text.embed("smiling").tolist()
    data = content(names=["smiling", "neutral"], prototypes=[embed, [-x for x in embed]])
    bundle = with_language(tiny_bundle, tmp_path / "scored", data)
    quality = animate(Animator.from_bundle(bundle, threads=1), bundle, tmp_path / "scored-job")
    assert quality == {"identity": before["identity"], "similarity": 1.0, "understood_as": "smiling"}
