"""A data set of Hugging Face, trained on as it is.

    pip install datasets
    python examples/huggingface_dataset.py beans 2m

Columns of images and labels go straight into the estimator: images may have different sizes.
"""

import sys
from typing import Any

from timebox import TimeboxClassifier


def fit(dataset: Any, budget: str) -> TimeboxClassifier:
    """Train on a ``datasets.Dataset`` with a column of images and one of labels."""
    images = next(name for name, feature in dataset.features.items() if type(feature).__name__ == "Image")
    labels = next(name for name, feature in dataset.features.items() if type(feature).__name__ == "ClassLabel")
    names = dataset.features[labels].names
    classes = [names[label] for label in dataset[labels]]
    return TimeboxClassifier(budget).fit(list(dataset[images]), classes)


def main(name: str = "beans", budget: str = "60s") -> None:
    import datasets

    train, test = (datasets.load_dataset(name, split=split) for split in ("train", "test"))
    classifier = fit(train, budget)
    names = test.features["labels"].names
    print(classifier.score(list(test["image"]), [names[label] for label in test["labels"]]))


if __name__ == "__main__":
    main(*sys.argv[1:])
