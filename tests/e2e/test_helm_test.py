"""What `helm test` does in its pod, done here with the same words and the same picture."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.tools import path_of
from tests.e2e.conftest import ROOT, Service
from tests.helm.chart import find, render

pytestmark = pytest.mark.e2e
REQUIRED = os.environ.get("POSEGATE_TEST_CHART") == "require"  # as in CI: nothing may be skipped


@pytest.mark.skipif(
    not REQUIRED and not path_of("helm4").is_file(), reason="helm is not here: run scripts/check_chart"
)
def test_helm_test_finds_the_one_person_in_its_picture(service: Service, tmp_path: Path) -> None:
    objects = render("cpu")
    pod = find(objects, "Pod", "rel-posegate-test")["spec"]
    picture = find(objects, "ConfigMap", "rel-posegate-test")["binaryData"]["person.jpg"]
    (tmp_path / "person.jpg").write_bytes(base64.b64decode(picture))
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    [health] = pod["initContainers"]
    asked = subprocess.run(
        ["posegate", *health["args"][:-1], service.address],
        env=environment, cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (asked.returncode, asked.stdout.strip()) == (0, "SERVING")

    [detect] = pod["containers"]
    script = detect["command"][2].replace("/test/", f"{tmp_path}/").replace("/tmp/found", f"{tmp_path}/found")  # noqa: S108
    found = subprocess.run(
        [*detect["command"][:2], script],
        env={**environment, "ADDRESS": service.address},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert "1 person(s) found, 1 expected" in found.stdout
