"""Labels images with a model that `timebox export` wrote: `python serve_onnx.py model.onnx photo.jpg …`.

Needs onnxruntime, numpy and Pillow; neither timebox nor torch.
"""

import json
import os
import sys

import numpy as np
from PIL import Image, ImageOps

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when onnxruntime is imported
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1])
facts = session.get_modelmeta().custom_metadata_map
class_names, channels = json.loads(facts["class_names"]), json.loads(facts["channels"])
for path in sys.argv[2:]:
    image = ImageOps.exif_transpose(Image.open(path)).convert({1: "L", 3: "RGB", 4: "RGBA"}[channels])
    pixels = np.asarray(image, dtype=np.uint8).reshape(1, image.height, image.width, channels)
    probabilities = session.run(["probabilities"], {"images": pixels})[0][0]
    best = int(probabilities.argmax())
    print(f"{path}: {class_names[best]} ({probabilities[best]:.1%})")
