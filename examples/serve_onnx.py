"""Serves a model that `timebox export` wrote over HTTP, or labels files with it.

    python serve_onnx.py model.onnx                        # http://127.0.0.1:8000
    curl --data-binary @photo.jpg http://127.0.0.1:8000    # {"label": "cat", "probabilities": {"cat": 0.98, …}}
    python serve_onnx.py model.onnx photo.jpg …            # a line for each file

Images are decoded as for training. Needs onnxruntime and timebox-vision, but not torch:
`pip install onnxruntime msgspec numpy pillow` and `pip install --no-deps timebox-vision`.
"""

import io
import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

import timebox

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when onnxruntime is imported
import onnxruntime

ADDRESS = ("127.0.0.1", 8000)
MAX_BYTES = 50_000_000


class Classifier:
    """A model file, with the class names and the number of channels from its metadata."""

    def __init__(self, path: str) -> None:
        self.session = onnxruntime.InferenceSession(path)
        metadata = self.session.get_modelmeta().custom_metadata_map
        self.class_names, self.channels = json.loads(metadata["class_names"]), json.loads(metadata["channels"])
        self.white_16bit = json.loads(metadata["white_16bit"])

    def predict_proba(self, file: str | Path | BinaryIO) -> NDArray[np.float32]:
        """Probabilities of the classes, float32 (num_classes,). Raises timebox.DataError."""
        pixels = timebox.decode_image(file, channels=self.channels, white_16bit=self.white_16bit)
        probabilities: NDArray[np.float32] = self.session.run(["probabilities"], {"images": pixels[None]})[0][0]
        return probabilities


def make_server(classifier: Classifier, address: tuple[str, int]) -> ThreadingHTTPServer:
    """A server that answers the bytes of an image file with its label and probabilities, as JSON."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            if not 0 < length <= MAX_BYTES:
                self.answer(413, {"error": f"send 1 to {MAX_BYTES:,} bytes of an image file"})
                return
            try:
                probabilities = classifier.predict_proba(io.BytesIO(self.rfile.read(length)))
            except timebox.DataError as error:
                self.answer(400, {"error": str(error)})
                return
            by_name = dict(zip(classifier.class_names, probabilities.tolist(), strict=True))
            self.answer(200, {"label": classifier.class_names[probabilities.argmax()], "probabilities": by_name})

        def answer(self, status: int, content: object) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Print nothing for each request."""

    return ThreadingHTTPServer(address, Handler)


def main(model: str, *files: str) -> None:
    classifier = Classifier(model)
    for file in files:
        try:
            probabilities = classifier.predict_proba(file)
            best = int(probabilities.argmax())
            print(f"{file}: {classifier.class_names[best]} ({probabilities[best]:.1%})")
        except timebox.DataError as error:
            print(f"{file}: cannot be read: {error}")
    if not files:
        with make_server(classifier, ADDRESS) as server:
            print(f"POST image files to http://{ADDRESS[0]}:{ADDRESS[1]}")
            server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
