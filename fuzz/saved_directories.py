"""Fuzz targets for whole directories: runs, searches, benchmarks, classifiers and the image cache.

Each begins with a golden directory of the tests and damages it. Beside own errors, two things count as failures: a file
outside the directory has changed, or one inside that timebox did not write.
"""

import contextlib
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from damage import contents, damage, write_outside
from timebox.benchmarking.directory import BenchmarkDirectory
from timebox.data import load_data
from timebox.data.reading import encoded_images
from timebox.errors import TimeboxError
from timebox.estimator import TimeboxClassifier
from timebox.jobs.existing_run import ExistingRun
from timebox.pipelines.compare import compare
from timebox.run.directories.output import claim_output
from timebox.run.directories.own_files import remove_own_files
from timebox.run.metrics_log import read_metrics
from timebox.run.run import load
from timebox.tuning.directory import TuneDirectory
from timebox.tuning.storage import open_storage

GOLDEN = Path(__file__).parents[1] / "tests" / "golden" / "0.2.0"
NUM_CACHED = 6


@cache
def _golden(name: str) -> Path:
    """A golden directory, unpacked once for this process."""
    folder = Path(tempfile.mkdtemp(prefix="timebox-fuzz-golden-"))
    with tarfile.open(GOLDEN / f"{name}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / name


@contextmanager
def _damaged(scratch: Path, name: str, data: bytes) -> Iterator[Path]:
    """A damaged copy of a golden directory. Raises AssertionError where a foreign file has changed afterwards."""
    folder = scratch / name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(_golden(name), folder)
    outside = write_outside(scratch)
    before = contents(outside)
    foreign = damage(folder, outside, data)
    yield folder
    assert contents(outside) == before, "a file outside the directory has changed"
    left = {path.name for path in folder.rglob("*")}
    assert foreign <= left, f"{foreign - left} has been deleted"


def _each(*calls: Callable[[], object]) -> None:
    """Make every call; own errors are expected."""
    for call in calls:
        with contextlib.suppress(TimeboxError):
            call()


def run_directory(scratch: Path, data: bytes) -> None:
    """A finished run, and one that was killed: all that the verbs read of it, and its replacement by another run."""
    name = ("budget", "killed")[data[0] % 2] if data else "budget"
    with _damaged(scratch, name, data[1:]) as run:

        def predict() -> None:
            loaded = load(run, device="cpu")
            height, width, channels = loaded.preprocessing.image_shape
            loaded.predict_proba(np.zeros((1, min(height, 64), min(width, 64), channels), np.uint8))

        def replace() -> None:
            claimed = claim_output(run, overwrite=True)
            with closing(claimed.folder) as folder:
                remove_own_files(folder)

        _each(
            predict,
            lambda: compare([run, run], output=scratch / "page.html"),
            lambda: ExistingRun.load(run).plan,
            lambda: sum(1 for _ in read_metrics(run / "metrics.jsonl")),
            replace,
        )


def search_directory(scratch: Path, data: bytes) -> None:
    """A finished search: its files, its journal and its final run."""
    with _damaged(scratch, "tuned", data) as search:

        def reopen() -> None:
            with closing(TuneDirectory.existing(search)) as directory:
                _ = directory.is_finished, directory.study_name
                for path in sorted(search.iterdir()):
                    with contextlib.suppress(TimeboxError):
                        directory.read(path.name)

        def read_journal() -> None:
            storage = open_storage(str(search / "journal.log"))
            for study in storage.get_all_studies():
                storage.get_all_trials(study._study_id)

        _each(reopen, read_journal, lambda: load(search / "final", device="cpu"))


def benchmark_directory(scratch: Path, data: bytes) -> None:
    """A finished benchmark, opened to be resumed."""
    with _damaged(scratch, "benchmarked", data) as benchmark:
        _each(lambda: BenchmarkDirectory.existing(benchmark).close())


def classifier_directory(scratch: Path, data: bytes) -> None:
    """A saved TimeboxClassifier."""
    with _damaged(scratch, "estimator", data) as folder:

        def predict() -> None:
            classifier = TimeboxClassifier.load(folder, device="cpu")
            height, width, channels = classifier.run_.preprocessing.image_shape
            classifier.predict(np.zeros((1, min(height, 64), min(width, 64), channels), np.uint8))

        _each(predict)


def image_cache(scratch: Path, data: bytes) -> None:
    """Images that the cache returns are those of the files, whatever has happened to the cache."""
    os.environ["TIMEBOX_CACHE"] = str(scratch / "cache")
    encoded_images.MIN_CACHED_PIXELS = 0
    images = scratch / "images"
    if not images.exists():
        for number in range(NUM_CACHED):
            path = images / ("cat", "dog")[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((16, 16), 10 * number, np.uint8)).save(path)
    shutil.rmtree(scratch / "cache", ignore_errors=True)
    expected = np.array(load_data(images).splits.train.images)  # a copy: they are mapped from the cache's files
    outside = write_outside(scratch)
    before = contents(outside)
    damage(scratch / "cache", outside, data)
    for _ in range(2):  # the second reads what the first may have rebuilt
        assert np.array_equal(load_data(images).splits.train.images, expected), "the cache returned other images"
    assert contents(outside) == before, "a file outside the cache has changed"


DIRECTORY_TARGETS = {
    "run_directory": run_directory,
    "search_directory": search_directory,
    "benchmark_directory": benchmark_directory,
    "classifier_directory": classifier_directory,
    "image_cache": image_cache,
}
