"""The API's image copies only parts of the tree; these parts alone must serve, with the look for faces."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.house.tree import ROOT
from tests.photographs import PATH as PHOTOGRAPH

DOCKERFILE = ROOT / "deploy" / "api.Dockerfile"
SERVED = """
import sys
import numpy as np
from PIL import Image
from model.faces import FaceDetector
import services.api.app

services.api.app.create_app().openapi()
print(len(FaceDetector.shipped().detect(np.asarray(Image.open(sys.argv[1])))))
"""


def copy_image(folder: Path) -> None:
    """Lay the image's own part of the tree into a folder, as its COPY lines say."""
    for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE.read_text(encoding="utf-8"), re.MULTILINE):
        *sources, target = line.split()
        for source in sources:
            if target.startswith("/") or not (ROOT / source).exists():
                continue
            place = folder / target / Path(source).name if target.endswith("/") else folder / target
            place.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, place, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / source, place)


def run_in_image(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run Python as in a container of the image: -P and a foreign working folder keep the checkout out of reach."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANIMATO_")}
    own = {"PYTHONPATH": str(folder / "app"), "ANIMATO_DATA_DIR": str(folder / "data"), "ANIMATO_AUTH": "off"}
    return subprocess.run(
        [sys.executable, "-P", *words],
        cwd=folder,
        env=environment | own,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_images_files_alone_find_faces(tmp_path: Path) -> None:
    copy_image(tmp_path / "app")
    assert not (tmp_path / "app" / "model" / "sessions.py").exists()
    done = run_in_image(tmp_path, "-c", SERVED, str(PHOTOGRAPH))
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["1"]


def test_the_images_files_alone_make_keys(tmp_path: Path) -> None:
    copy_image(tmp_path / "app")
    done = run_in_image(tmp_path, "-m", "cli.keys", "create", "--owner", "ada")
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("ank_")
    refused = run_in_image(tmp_path, "-m", "cli.keys", "revoke", "nobody")
    assert refused.returncode == 1
    assert "no key with the id" in refused.stderr
