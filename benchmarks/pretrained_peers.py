"""What others do with the same pretrained weights: fine-tuning of the whole network, and a scikit-learn head.

    python benchmarks/pretrained_peers.py photos.npz --method fine-tuning --seconds 55
    python benchmarks/pretrained_peers.py photos.npz --method head

The file has a test split (`test_images`, else `val_images`), which is scored outside the clock, as reading is.
Fine-tuning is the usual loop: AdamW over all layers, one cycle that ends with the clock, mirroring and shifts, fp32,
128 px. The head is scikit-learn's LogisticRegressionCV on the features of all training images. A line of JSON comes
out.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from timebox.models.efficientnet_lite import NUM_FEATURES, EfficientNetLite0
from timebox.pretrained.weights import EFFICIENTNET_LITE0

SIDE, BATCH_SIZE, MAX_SHIFT = 128, 32, 8
MAX_LR, WEIGHT_DECAY, WARMUP, LABEL_SMOOTHING = 5e-4, 0.01, 0.15, 0.1
INVERSE_DECAYS, NUM_FOLDS, MAX_ITERATIONS = (0.001, 0.01, 0.1), 4, 100
MIN_STD = 1e-3


@dataclass(frozen=True)
class Data:
    """Images uint8 (N, H, W, C) and labels int64 (N,), to train on and to score."""

    images: NDArray[np.uint8]
    labels: Tensor
    test_images: NDArray[np.uint8]
    test_labels: Tensor


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--method", choices=("fine-tuning", "head"), required=True)
    parser.add_argument("--seconds", type=float, default=55.0, help="of fine-tuning")
    parser.add_argument("--train-limit", type=int, help="train on so many images, chosen at random")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    torch.manual_seed(args.seed)
    data = read(args.data, args.train_limit)
    started = time.perf_counter()
    network = EfficientNetLite0()
    network.load_state_dict(EFFICIENTNET_LITE0.read())
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if args.method == "head":
        accuracy, seconds = fit_head(network, data, started)
        result = {"accuracy": accuracy, "seconds": seconds}
    else:
        head, epochs = fine_tune(network, data, started, args.seconds)
        result = {"accuracy": score(network, head, data), "seconds": args.seconds, "epochs": epochs}
    shown = {"data": args.data.name, "method": args.method, "train_limit": args.train_limit, "seed": args.seed}
    print(json.dumps({**shown, **result}))


def read(path: Path, limit: int | None) -> Data:
    arrays = np.load(path)
    test = "test" if "test_images" in arrays else "val"
    images, labels = arrays["train_images"], arrays["train_labels"].astype(np.int64)
    kept = np.random.default_rng(0).permutation(len(images))[:limit]
    test_labels = torch.from_numpy(arrays[f"{test}_labels"].astype(np.int64))
    return Data(images[kept], torch.from_numpy(labels[kept]), arrays[f"{test}_images"], test_labels)


def inputs_of(images: NDArray[np.uint8]) -> Tensor:
    pixels = (torch.from_numpy(images).permute(0, 3, 1, 2).float() - 127) / 128
    pixels = pixels.expand(-1, 3, -1, -1) if pixels.shape[1] == 1 else pixels
    resized = F.interpolate(pixels, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    return resized.contiguous(memory_format=torch.channels_last)


def fine_tune(network: EfficientNetLite0, data: Data, started: float, seconds: float) -> tuple[nn.Linear, float]:
    """Train all layers until so many seconds after ``started``: the head, and the epochs that this was."""
    head = nn.Linear(NUM_FEATURES, int(data.labels.max()) + 1)
    parameters = [*network.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=MAX_LR, weight_decay=WEIGHT_DECAY, fused=True)
    rng, num_seen = np.random.default_rng(0), 0
    while True:
        for rows in torch.randperm(len(data.labels)).split(BATCH_SIZE):
            progress = (time.perf_counter() - started) / seconds
            if progress >= 1:
                return head, num_seen / len(data.labels)
            optimizer.param_groups[0]["lr"] = MAX_LR * min(progress / WARMUP + 0.01, (1 - progress) / (1 - WARMUP))
            inputs = inputs_of(data.images[rows.numpy()])
            inputs = inputs.flip(3) if rng.random() < 0.5 else inputs
            shifts = tuple(int(shift) for shift in rng.integers(-MAX_SHIFT, MAX_SHIFT + 1, 2))
            logits = head(network(torch.roll(inputs, shifts, (2, 3)).contiguous(memory_format=torch.channels_last)))
            loss = F.cross_entropy(logits, data.labels[rows], label_smoothing=LABEL_SMOOTHING)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            num_seen += len(rows)


@torch.no_grad()
def features_of(network: EfficientNetLite0, images: NDArray[np.uint8]) -> Tensor:
    starts = range(0, len(images), BATCH_SIZE)
    return torch.cat([network(inputs_of(images[start : start + BATCH_SIZE])) for start in starts])


@torch.no_grad()
def score(network: EfficientNetLite0, head: nn.Linear, data: Data) -> float:
    predicted = head(features_of(network, data.test_images)).argmax(1)
    return (predicted == data.test_labels).float().mean().item()


def fit_head(network: EfficientNetLite0, data: Data, started: float) -> tuple[float, float]:
    """Accuracy of a head on the features of all training images, and the seconds since ``started`` that it took."""
    from sklearn.linear_model import LogisticRegressionCV
    from threadpoolctl import threadpool_limits

    features = features_of(network, data.images)
    mean, std = features.mean(0), features.std(0) + MIN_STD
    with threadpool_limits(1, user_api="blas"):
        model = LogisticRegressionCV(Cs=INVERSE_DECAYS, cv=NUM_FOLDS, max_iter=MAX_ITERATIONS)
        model.fit(((features - mean) / std).numpy(), data.labels.numpy())
    seconds = time.perf_counter() - started
    predicted = model.predict(((features_of(network, data.test_images) - mean) / std).numpy())
    return float((predicted == data.test_labels.numpy()).mean()), seconds


if __name__ == "__main__":
    main()
