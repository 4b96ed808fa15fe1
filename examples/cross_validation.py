"""timebox in a pipeline of scikit-learn, cross-validated.

python examples/cross_validation.py 10s
"""

import sys

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from timebox import TimeboxClassifier


def to_images(rows: np.ndarray) -> np.ndarray:
    """Rows of 64 values in 0...16 to images uint8 (N, 8, 8)."""
    return (rows * 255 / 16).round().astype(np.uint8).reshape(-1, 8, 8)


def main(budget: str = "10s") -> None:
    images, labels = load_digits(return_X_y=True)
    pipeline = make_pipeline(FunctionTransformer(to_images), TimeboxClassifier(budget, random_state=0))
    scores = cross_val_score(pipeline, images, labels, cv=3)
    print(f"{scores.mean():.1%} on average, from {scores.min():.1%} to {scores.max():.1%}")


if __name__ == "__main__":
    main(*sys.argv[1:])
