"""A served run, asked without a network."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette", reason="the extra serve is not installed")
from starlette.testclient import TestClient

from timebox.run import Run
from timebox.serving.predictions.app import PredictionServer
from timebox.serving.predictions.feedback import Feedback

ADDRESS = "http://localhost"


@pytest.fixture
def feedback(tmp_path: Path) -> Path:
    """The folder of corrected pictures; it does not exist yet."""
    return tmp_path / "feedback"


@pytest.fixture
def client(trained: Run, feedback: Path) -> Iterator[TestClient]:
    server = PredictionServer(trained, "recipe", None, Feedback(feedback, trained.class_names))
    with TestClient(server.app, ADDRESS, raise_server_exceptions=False) as client:
        yield client


def encoded(colour: int = 0, seed: int = 0, kind: str = "png", mode: str = "RGB", side: int = 20) -> bytes:
    """A noise picture of a colour (red, green, blue), as a file."""
    pixels = np.random.default_rng(seed).integers(0, 150, (side, side + 3, 3))
    pixels[:, :, colour] += 100
    image = Image.fromarray(pixels.astype(np.uint8))
    buffer = io.BytesIO()
    (image.convert("L").convert(mode) if mode in ("I", "I;16") else image.convert(mode)).save(buffer, kind)
    return buffer.getvalue()
