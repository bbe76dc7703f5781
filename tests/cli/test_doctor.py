"""``he2st doctor``."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys

from napari_he2st.cli import doctor
from napari_he2st.zoo.encoders.table import encoders


def test_what_is_checked(he2st) -> None:
    outcome = he2st("doctor", "--json")
    assert outcome.code == 0
    checks = {check["name"]: check for check in outcome.json}
    assert {"python", "torch", "window", "device", "hub", "efficientnet-lite0", "cache", "disk"} <= checks.keys()
    assert encoders().keys() - {"colour-texture"} <= checks.keys()
    assert checks["uni"]["state"] == "absent"
    assert "MahmoodLab/uni, on request" in checks["uni"]["found"]
    assert checks["torch"]["found"] == importlib.metadata.version("torch")
    assert checks["efficientnet-lite0"]["state"] == "ok"
    assert "without weights here" in he2st("doctor").out
    assert "MahmoodLab/UNI2-h" in he2st("doctor", "--all").out


def test_missing_package_is_an_error(he2st, monkeypatch) -> None:
    monkeypatch.setattr(doctor, "_PACKAGES", ("no-such-package-at-all",))
    outcome = he2st("doctor", "--json")
    assert outcome.code == 1
    assert outcome.json[1]["state"] == "error"
    assert "pip install" in outcome.json[1]["todo"]


def test_full_disk_is_a_warning(he2st, monkeypatch) -> None:
    monkeypatch.setattr(doctor, "_ENOUGH_DISK", float("inf"))
    outcome = he2st("doctor", "--json")
    assert outcome.code == 0
    assert outcome.json[-1]["state"] == "warning"


def test_qt_is_not_loaded() -> None:
    code = (
        "import sys\n"
        "from napari_he2st.cli.app import main\n"
        "try:\n    main(['doctor'])\n"
        "except SystemExit:\n    pass\n"
        "sys.exit(any(name.split('.')[0] in ('qtpy', 'PyQt6', 'PySide6', 'napari') for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_weights_that_do_not_match_are_an_error(he2st, tmp_path, monkeypatch) -> None:
    (tmp_path / "weights.toml").write_text('uni = "gone.bin"\n')
    monkeypatch.setenv("HE2ST_WEIGHTS", str(tmp_path / "weights.toml"))
    outcome = he2st("doctor", "--json")
    assert outcome.code == 1
    assert next(check for check in outcome.json if check["name"] == "uni")["state"] == "error"
