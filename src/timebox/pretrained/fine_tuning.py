"""Fine-tuning the head and the last blocks of a pretrained classifier, on activations that are computed once.

The blocks before them are most of the work, and what they see is common to all images (J. Yosinski et al., How
transferable are features in deep neural networks?, 2014, arXiv 1411.1792), so they stay as published.
"""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from timebox.clock import now
from timebox.models.efficientnet_lite import FROZEN_BLOCKS
from timebox.models.pretrained import PretrainedClassifier

BATCH_SIZE, MAX_LR, WEIGHT_DECAY = 32, 1e-3, 0.01
LABEL_SMOOTHING, DROPOUT = 0.1, 0.5
# Share of the training in which the learning rate rises; it falls to 0 in the rest, both linearly.
WARMUP_SHARE = 0.15
# Steps of a measurement.
NUM_MEASURED = 3


@dataclass(frozen=True)
class FineTuning:
    """How a classifier is fine-tuned.

    Attributes:
        num_frozen: number of first blocks that stay as they are.
        epochs: passes over all images.
        seed: of the order of the images and of dropout.
        seconds: after so many the training ends, with the learning rate at 0 as after all epochs.
    """

    num_frozen: int
    epochs: int
    seed: int
    seconds: float = inf

    def run(self, classifier: PretrainedClassifier, activations: Tensor, labels: Tensor) -> None:
        """Train the classifier's head and last blocks in place, in bf16 where the activations are.

        Args:
            classifier: on any device; the training takes place there.
            activations: (N, h, w, C), float32 or bfloat16, after the frozen blocks.
            labels: int64 (N,).
        """
        optimizer = self._optimizer(classifier)
        generator = torch.Generator().manual_seed(self.seed)
        started, num_steps = now(), self.epochs * -(-len(labels) // BATCH_SIZE)
        for step, rows in enumerate(self._batches(len(labels), generator)):
            if (elapsed := now() - started) >= self.seconds:
                break
            progress = max(step / num_steps, elapsed / self.seconds)
            for group in optimizer.param_groups:
                group["lr"] = MAX_LR * min(
                    (progress + 1 / num_steps) / WARMUP_SHARE, (1 - progress) / (1 - WARMUP_SHARE)
                )
            self._step(classifier, optimizer, activations[rows], labels[rows], generator)
        classifier.requires_grad_(False)

    def _batches(self, num_images: int, generator: torch.Generator) -> Iterator[Tensor]:
        for _ in range(self.epochs):
            yield from torch.randperm(num_images, generator=generator).split(BATCH_SIZE)

    def seconds_per_image(self, classifier: PretrainedClassifier, precision: str) -> float:
        """Seconds that an image of the classifier's side takes in each epoch, as measured on a copy."""
        probe, generator = deepcopy(classifier), torch.Generator().manual_seed(0)
        channels, stride = FROZEN_BLOCKS[self.num_frozen]
        size, optimizer = -(-classifier.side // stride), self._optimizer(probe)
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        activations = torch.zeros(BATCH_SIZE, size, size, channels, dtype=dtype)
        labels, seconds = torch.zeros(BATCH_SIZE, dtype=torch.int64), list[float]()
        for _ in range(NUM_MEASURED):
            started = now()
            self._step(probe, optimizer, activations, labels, generator)
            seconds.append(now() - started)
        return min(seconds) / BATCH_SIZE

    def _optimizer(self, classifier: PretrainedClassifier) -> torch.optim.Optimizer:
        """Make only the last blocks and the head trainable, and build their optimizer."""
        classifier.requires_grad_(False)
        trained = nn.ModuleList([*classifier.backbone.tuned_layers(self.num_frozen), classifier.head])
        parameters = trained.requires_grad_(True).parameters()
        return torch.optim.AdamW(parameters, lr=MAX_LR, weight_decay=WEIGHT_DECAY, fused=True)

    def _step(
        self,
        classifier: PretrainedClassifier,
        optimizer: torch.optim.Optimizer,
        activations: Tensor,
        labels: Tensor,
        generator: torch.Generator,
    ) -> None:
        device = classifier.head.weight.device
        inputs = activations.to(device).permute(0, 3, 1, 2)
        with torch.autocast(device.type, torch.bfloat16, enabled=inputs.dtype == torch.bfloat16):
            features = classifier.backbone.tuned_part(inputs, self.num_frozen)
        kept = torch.rand(features.shape, generator=generator).to(device) >= DROPOUT
        logits = classifier.head(features.float() * kept / (1 - DROPOUT))
        loss = F.cross_entropy(logits, labels.to(device), label_smoothing=LABEL_SMOOTHING)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
