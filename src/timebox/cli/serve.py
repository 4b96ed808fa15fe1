"""`timebox serve`: a page in the browser to try a run on pictures, and an API."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from timebox.cli.exit_status import DONE
from timebox.cli.formatting import say, write
from timebox.cli.parsing import VerbHelp
from timebox.configs.verbs import ServeConfig
from timebox.errors import require_serve
from timebox.paths import expand_user

if TYPE_CHECKING:
    from timebox.run import Run
    from timebox.serving.predictions.predicting import Predictor

NONE = "none"
FEEDBACK = "feedback"  # beside the run, where no other folder is given

HELP = VerbHelp(
    ServeConfig,
    "try a run in the browser, and answer requests",
    "Opens a page for pictures, and an API: POST /predict takes a picture, or the files of a form, and answers with "
    "classes and calibrated probabilities; /openapi.json describes it. A picture whose class is corrected on the page "
    "is kept in a class folder, ready to train on. Only this machine can reach the server, unless --host says "
    "otherwise; requests need a token then.",
    (
        "timebox serve runs/demo",
        "timebox serve runs/demo --port 0 --feedback none",
        "timebox serve runs/demo --host 0.0.0.0 --token a-long-secret",
        "curl --data-binary @photo.jpg http://127.0.0.1:8000/predict",
    ),
    json_help=None,
)


def run(args: argparse.Namespace) -> int:
    """Serves until SIGINT or SIGTERM; requests in progress are finished then."""
    config: ServeConfig = args.config
    require_serve()

    from timebox.run import load
    from timebox.serving.http.addresses import address_of, lines_for_others, token_for
    from timebox.serving.http.server import listen, run_server
    from timebox.serving.predictions.app import PredictionServer
    from timebox.serving.predictions.feedback import Feedback

    token = token_for(config.host, config.token)
    trained = load(config.run, config.device, trust_code=config.trust_code)
    folder = None
    if config.feedback != NONE:
        folder = Path(expand_user(config.feedback)) if config.feedback else trained.path.absolute().parent / FEEDBACK
    feedback = Feedback(folder, trained.class_names) if folder else None
    server = PredictionServer(trained, config.tta, token, feedback)
    listener = listen(config.host, config.port)
    address, others = address_of(listener, config.host, token), lines_for_others(listener, token)
    with _onnx_engine(config, trained, server.predictor):
        run_server(server.app, listener, lambda: write(f"{trained.path} is served at {address} until Ctrl-C\n{others}"))
    return DONE


@contextmanager
def _onnx_engine(config: ServeConfig, trained: "Run", predictor: "Predictor") -> Iterator[None]:
    """Makes ONNX Runtime predict as soon as it can, where that is wanted and possible."""
    from timebox.exporting.parity import PredictFn
    from timebox.serving.predictions.onnx_engine import OnnxEngine

    if config.engine == "torch" or not OnnxEngine.is_possible(trained):
        yield
        return

    def use(predict: PredictFn, speedup: float) -> None:
        predictor.use("onnxruntime", predict)
        say(f"ONNX Runtime predicts from now on: one picture {speedup:.1f} times as fast as torch")

    engine = OnnxEngine(trained, config.tta, ("--trust-code",) if config.trust_code else (), use)
    try:
        yield
    finally:
        engine.close()
