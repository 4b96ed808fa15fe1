"""Importing ONNX Runtime without its telemetry."""

import os
from importlib import import_module
from typing import Any

# Read once, when the library is loaded: `onnxruntime.disable_telemetry_events()` comes too late, a thread runs by then,
# and a device id and a database are in the user's cache.
TELEMETRY_SWITCH = "ORT_DISABLE_TELEMETRY"


def import_onnxruntime() -> Any:
    """The module ``onnxruntime``, imported with its telemetry off; raises ImportError where it is not installed.

    The environment is as before afterwards. Where the user has set the switch, or has imported the module before, that
    stays as it is.
    """
    if TELEMETRY_SWITCH in os.environ:
        return import_module("onnxruntime")
    os.environ[TELEMETRY_SWITCH] = "1"
    try:
        return import_module("onnxruntime")
    finally:
        del os.environ[TELEMETRY_SWITCH]
