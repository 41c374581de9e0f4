"""The whole service behind the fences of its containers: an unprivileged user, no capability, everything read-only.

What docker-compose.yml asks for is made here with the kernel's own tools, so that it is tried wherever tests run as
root; ``compose_probe.py`` tries the containers themselves.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.house.tree import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2000)]

# A mount namespace in which all is read-only but a small folder in memory; then the user of the images. The folder is
# not /tmp: the project itself may lie there.
FENCE = """
set -eu
mount --make-rprivate /
mount --bind "$1" /media
case $(readlink -f "$2") in /root/*)  # an interpreter in root's own home: show it to others, and nothing else of it
  inside=$(readlink -f "$2" | cut -d/ -f3)
  mount --bind "/root/$inside" /srv
  mount -t tmpfs -o mode=755 tmpfs /root
  mkdir "/root/$inside"
  mount --move /srv "/root/$inside"
esac
mount -t tmpfs -o size=256m,mode=1777 tmpfs /var/tmp
awk '$2 != "/var/tmp" && $2 !~ "^/(proc|sys|dev)" {print $2}' /proc/mounts | while read -r place; do
  mount -o remount,ro,bind "$place" || true  # one that another mount hides; what counts is looked at from inside
done
shift
exec setpriv --reuid 10001 --regid 10001 --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all "$@"
"""
ATTEMPTS = """
import json, os, sys, time, urllib.error, urllib.request
from pathlib import Path
from services.launcher import embedded_service
from services.settings import Settings
from tests.e2e.test_restore import post_picture, succeed
from tests.services.api.pictures import encode, make_photo

written, changeable = [], []
for place in ("/", "/etc", "/usr", "/var", "/media", "/home", "/root", os.getcwd(), os.path.dirname(sys.executable)):
    if not os.statvfs(place).f_flag & os.ST_RDONLY:
        changeable.append(place)
    try:
        Path(place, "attempt").write_text("x")
        written.append(place)
    except OSError:
        pass
status = dict(line.split(":\\t") for line in Path("/proc/self/status").read_text().splitlines() if ":\\t" in line)
settings = Settings(data_dir=Path("/var/tmp/data"), bundles_dir=Path("/media"), port=0, min_free_bytes=0)
with embedded_service(settings) as url:
    job = post_picture(url)  # its picture is decoded in a child with fences of its own
    succeed(url, job)
    log = Path("/var/tmp/data/logs/api.log").read_text()
print(json.dumps({
    "uid": os.getuid(), "written": written, "changeable": changeable,
    "capabilities": int(status["CapEff"], 16) | int(status["CapBnd"], 16),
    "no_new_privileges": status["NoNewPrivs"].strip(), "log": log,
}))
"""


@pytest.fixture
def bundles(tmp_path: Path, tiny_bundle: Path) -> Path:
    """A folder of bundles that anybody may read."""
    folder = tmp_path / "bundles"
    shutil.copytree(tiny_bundle.parent, folder)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


def test_the_service_runs_as_nobody_on_a_read_only_system(bundles: Path) -> None:
    able = os.geteuid() == 0 and shutil.which("setpriv") and shutil.which("unshare")
    if not able or subprocess.run(["unshare", "-m", "true"], check=False).returncode:
        pytest.skip("THE FENCES WERE NOT TRIED: this needs root, unshare and setpriv")
    if ROOT.is_relative_to("/root"):
        pytest.skip("THE FENCES WERE NOT TRIED: nobody but root can read a project in root's own home")
    command = ["unshare", "-m", "bash", "-c", FENCE, "fence", bundles, sys.executable, "-c", ATTEMPTS]
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": "/var/tmp",
        "PYTHONPATH": str(ROOT),
    }
    environment["TMPDIR"] = "/var/tmp"
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert told["uid"] == 10_001
    assert told["written"] == told["changeable"] == []
    assert told["capabilities"] == 0
    assert told["no_new_privileges"] == "1"
    assert "picture_sandbox_incomplete" not in told["log"], "decoding children lock themselves in here too"


def test_containers_have_nothing_that_opens_a_way_out_of_them() -> None:
    services: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    for name, service in services.items():
        for way in ("network_mode", "pid", "ipc", "userns_mode", "devices", "cgroup_parent"):
            assert way not in service, f"{name}: {way}"
        assert all("docker.sock" not in mount for mount in service.get("volumes", []))
        assert "seccomp" not in str(service["security_opt"]), f"{name} leaves the runtime's own filter"
        for mount in service.get("tmpfs", []):
            assert "size=" in mount, f"{name}: {mount} may fill the memory"
        # The images of others name their user here, ours in their Dockerfile; prometheus' image has its own.
        assert str(service.get("user", "1")).split(":")[0] != "0", name
