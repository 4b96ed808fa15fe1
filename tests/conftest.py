"""What the tests of several floors share: real data, where it lies beside the repository."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# The same examples every time: a test that fails now and then tells nobody anything. `make fuzz` looks further.
settings.register_profile(
    "timebox",
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("timebox")

# The networks of the tests are tiny: a second thread gains nothing, and waits ten times as long for the first one where
# anything else runs beside. Set before torch is imported; processes that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# onnxruntime reads this when it is imported. What timebox itself imports is tested without.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# What a script starts with `&` ignores SIGINT, and so would all processes that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Decoded images that tests keep go with the tests.
CACHE = tempfile.TemporaryDirectory(prefix="timebox-tests-")
os.environ["TIMEBOX_CACHE"] = CACHE.name

# Minutes of trainings that are killed and disturbed: `pytest tests/endurance` or `make endurance`.
collect_ignore = ["endurance"]

# Only now: torch reads OMP_NUM_THREADS when it is imported.
import torch  # noqa: E402

from small_runs import Listing, quick, save_npz  # noqa: E402
from timebox.planning.throughput.cache import ThroughputCache  # noqa: E402
from timebox.run import Run  # noqa: E402

SHARED_DATA = Path(os.environ.get("TIMEBOX_TEST_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")


@pytest.fixture(scope="session")
def real_data(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """real_data("sign-digits") -> the folder of that real data set, unpacked once a session.

    The names are those of unpack.py in the folder TIMEBOX_TEST_DATA, by default ../shared/data beside the repository.
    A test that asks for one is skipped where they are not there.
    """
    folders: dict[str, Path] = {}

    def unpacked(name: str) -> Path:
        script = SHARED_DATA / "unpack.py"
        if not script.is_file():
            pytest.skip(f"no real data: {script} is missing; set TIMEBOX_TEST_DATA to the folder that holds unpack.py")
        if name not in folders:
            out = tmp_path_factory.mktemp(name)
            subprocess.run([sys.executable, script, name, out], check=True, capture_output=True)
            (folders[name],) = out.glob("*/")
        return folders[name]

    return unpacked


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small gain nothing from a second thread, and where the cores are busy they lose a hundredfold."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def no_throughput_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every plan of this process measures anew: simulated speeds of one test must not count in another."""
    monkeypatch.setattr("timebox.planning.selection.ThroughputCache.of_user", lambda: ThroughputCache(None))


@pytest.fixture
def global_random_state_untouched() -> Iterator[None]:
    before = torch.get_rng_state()
    yield
    assert torch.equal(torch.get_rng_state(), before)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """150 images of three classes, in one split."""
    return save_npz(tmp_path_factory.mktemp("data") / "colours.npz")


@pytest.fixture(scope="session")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that has learned to tell the colours: 24 test, 13 validation images held out. Not to be written to."""
    return quick(data, tmp_path_factory.mktemp("runs") / "colours", steps=40, test=24 / 150)


@pytest.fixture
def files_under(tmp_path: Path) -> Listing:
    """Everything under tmp_path, by relative path."""
    return lambda: sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
