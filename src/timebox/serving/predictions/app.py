"""The paths of the server, with a function for each."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from timebox.data.images.decode import FIT_DESCRIPTIONS
from timebox.reporting.rendering import data_uri
from timebox.run import Run
from timebox.serving.http.answers import json_answer
from timebox.serving.http.app import build_app
from timebox.serving.http.bodies import Limits, RequestPictures, Room
from timebox.serving.http.errors import RequestError
from timebox.serving.predictions.feedback import Feedback
from timebox.serving.predictions.openapi import (
    Explanation,
    Health,
    ModelDescription,
    Predictions,
    Preprocessing,
    Removed,
    Saved,
    openapi,
)
from timebox.serving.predictions.predicting import Predictor
from timebox.version import VERSION

HEAT_COLOUR = (220, 40, 20)
MAX_HEAT_ALPHA = 200


class PredictionServer:
    """A run that answers requests.

    Args:
        tta: test-time augmentation of predictions.
        token: that requests need; None for none.
        feedback: where corrected pictures are kept; None where none are taken.
    Attributes:
        predictor: that answers are taken from.
    """

    def __init__(
        self, run: Run, tta: str, token: str | None, feedback: Feedback | None, limits: Limits | None = None
    ) -> None:
        self._run, self._feedback, self._has_token = run, feedback, token is not None
        self._views = run.views(tta)
        self._limits = limits or Limits()
        self._room = Room(self._limits)
        self.predictor = Predictor(run, tta)
        routes = [
            Route("/health", self._health),
            Route("/model", self._model),
            Route("/openapi.json", self._openapi),
            Route("/predict", self._predict, methods=["POST"]),
            Route("/explain", self._explain, methods=["POST"]),
            Route("/feedback", self._save_feedback, methods=["POST"]),
            Route("/feedback/undo", self._undo_feedback, methods=["POST"]),
        ]
        self.app = build_app("predict.html", routes, token, self._lifespan)

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        yield
        self.predictor.close()

    async def _health(self, request: Request) -> Response:
        return json_answer(Health("ok", self._room.num_images, self.predictor.engine))

    async def _openapi(self, request: Request) -> Response:
        return json_answer(openapi(self._has_token))

    async def _model(self, request: Request) -> Response:
        return json_answer(describe_model(self._run, self._views, self._feedback))

    async def _predict(self, request: Request) -> Response:
        top = self._top(request)
        async with RequestPictures(request, self._room, self._limits) as pictures:
            started = time.perf_counter()
            predictions = await self.predictor.predict(pictures, top)
        return json_answer(Predictions(predictions, round(1000 * (time.perf_counter() - started), 2)))

    async def _explain(self, request: Request) -> Response:
        label = request.query_params.get("label")
        if label is not None and label not in self._run.class_names:
            raise RequestError(400, f"{label!r} is no class of this model; GET /model lists them")
        async with RequestPictures(request, self._room, self._limits) as pictures:
            if len(pictures) != 1:
                raise RequestError(400, f"one picture can be explained at a time, not {len(pictures)}")
            label, heat = await self.predictor.explain(pictures[0], label)
        height, width = heat.shape
        return json_answer(Explanation(label, width, height, heat_uri(heat)))

    async def _save_feedback(self, request: Request) -> Response:
        feedback = self._feedback_folder()
        label = request.query_params.get("label")
        if label is None:
            raise RequestError(400, "the class is missing: POST /feedback?label=CLASS")
        async with RequestPictures(request, self._room, self._limits) as pictures:
            for picture in pictures:
                await self.predictor.readable(picture)
            path, previous = [feedback.save(picture, label) for picture in pictures][-1]
        return json_answer(Saved(str(path), previous))

    async def _undo_feedback(self, request: Request) -> Response:
        feedback = self._feedback_folder()
        async with RequestPictures(request, self._room, self._limits) as pictures:
            for picture in pictures:
                await self.predictor.readable(picture)
            removed = [str(path) for picture in pictures for path in feedback.remove(picture)]
        return json_answer(Removed(removed))

    def _feedback_folder(self) -> Feedback:
        if self._feedback is None:
            raise RequestError(403, "this server was started without a folder for corrected pictures")
        return self._feedback

    def _top(self, request: Request) -> int:
        text, most = request.query_params.get("top", "1"), len(self._run.class_names)
        if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) >= 1):
            raise RequestError(400, f"top={text!r} must be a whole number of 1 or more")
        return min(int(text), most)


def describe_model(run: Run, views: str, feedback: Feedback | None) -> ModelDescription:
    """The answer to ``GET /model``."""
    form, summary = run.preprocessing, run.summary
    splits = {"test": run.test_accuracy, "val": run.val_accuracy}
    split = next((name for name, accuracy in splits.items() if accuracy is not None), None)
    num_images, budget = summary.get(f"{split}_images"), summary.get("budget_seconds")
    height, width = form.size
    mean, std = (values.tolist() for values in form.tensors())
    return ModelDescription(
        name=run.path.resolve().name,
        classes=list(run.class_names),
        accuracy=splits[split] if split else None,
        accuracy_split=split,
        num_images=num_images if isinstance(num_images, int) else 0,
        is_calibrated=run.uncalibrated_reason is None,
        budget_seconds=float(budget) if isinstance(budget, int | float) else None,
        preprocessing=Preprocessing(
            width, height, form.channels, FIT_DESCRIPTIONS[run.recipe.image_fit], mean, std, views
        ),
        feedback=str(feedback.folder) if feedback else None,
        timebox=VERSION,
    )


def heat_uri(heat: NDArray[np.float32]) -> str:
    """A heat map (H, W) in 0...1 as a PNG to lay over the picture: the larger a value, the more opaque."""
    pixels = np.empty((*heat.shape, 4), np.uint8)
    pixels[..., :3] = HEAT_COLOUR
    pixels[..., 3] = np.round(MAX_HEAT_ALPHA * heat).astype(np.uint8)
    return data_uri(pixels)
