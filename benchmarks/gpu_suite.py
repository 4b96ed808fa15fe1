"""What is measured on a GPU, in chunks that stand alone and end by themselves.

    PYTHONPATH=src python benchmarks/gpu_suite.py CHUNK... --data DIR --out results.jsonl [--seconds 540] [--commit SHA]

DIR holds CIFAR-10 and CIFAR-100 as published. Every chunk appends JSON lines: trials, and at its end how
many trials there was time for. It needs torch, numpy, Pillow and safetensors, nothing else. `--list` shows the chunks;
`--smoke` runs them on made-up images on the CPU, in seconds, to see that they run at all: its numbers mean nothing.
`--summary FILE` shows what the lines of a file come to, and whether targets were reached; it needs scipy too.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median

import numpy as np
import torch

import timebox
from timebox.benchmarking.speedrun import Speedrun, Trial, steps_for_epochs, summarize, time_to_accuracy
from timebox.clock import Deadline
from timebox.data import ImageDataset, load_data
from timebox.models import count_flops
from timebox.recipes import Recipe, Value, get_recipe, parse_settings
from timebox.runtime.precision import PRECISIONS, Precision
from timebox.runtime.threads import limit_threads_to_container
from timebox.runtime.timing import fastest_seconds

PLACES = {
    "cifar10": ("cifar-10-batches-py", "cifar-10-batches-bin", "cifar-10-python.tar.gz", "cifar-10-binary.tar.gz"),
    "cifar100": ("cifar-100-python", "cifar-100-binary", "cifar-100-python.tar.gz", "cifar-100-binary.tar.gz"),
}
# What a full budget of a training is; where less time is left, it is that, less what scoring may take.
BUDGET_SECONDS, SCORING_SECONDS = 480.0, 40.0
# Time kept free for the lines at the end, and how much slower than the slowest the next round may be.
END_SECONDS, MARGIN = 5.0, 1.3
# A tiny network for a smoke test, and its images.
SMOKE: Mapping[str, Value] = {"width": 4, "batch_size": 16, "crop_padding": 2, "cutout_size": 0, "max_lr": 0.1}
SMOKE_IMAGES, SMOKE_SIDE, SMOKE_CLASSES = 48, 12, 3


@dataclass(frozen=True)
class Entrant:
    """A recipe, what is changed in it, and how long it trains."""

    recipe: str
    epochs: float
    changes: Mapping[str, Value] = field(default_factory=dict)
    precision: str = "bf16"


@dataclass
class Session:
    """Where a chunk finds what it needs, and where its lines go."""

    chunk: str
    data: Path | None
    out: Path
    deadline: Deadline
    smoke: bool
    commit: str | None
    changes: Mapping[str, Value]
    epochs: float | None
    device: torch.device
    scratch: Path

    def log(self, entry: Mapping[str, object]) -> None:
        """Append one line; trials are shown too."""
        about = {
            "chunk": self.chunk,
            "smoke": self.smoke,
            "commit": self.commit,
            "device": torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu",
            "torch": str(torch.__version__),
            "cuda": torch.version.cuda,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        with self.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**entry, **about}, allow_nan=False) + "\n")
        brief = ("kind", "name", "n", "accuracy", "mean_accuracy", "mean_seconds", "train_seconds", "note")
        print(self.chunk, json.dumps({name: entry[name] for name in brief if name in entry}), flush=True)

    def path(self, name: str) -> Path:
        """Where a data set lies."""
        if self.smoke:
            return made_up(self.scratch / f"{name}.npz")
        found = [self.data / place for place in PLACES[name] if self.data and (self.data / place).exists()]
        if not found:
            sys.exit(f"no {name} in {str(self.data)!r}: --data must hold one of {', '.join(PLACES[name])}")
        return found[0]

    def read(self, name: str) -> tuple[ImageDataset, ImageDataset]:
        """Training and test images."""
        splits = load_data(self.path(name)).splits
        assert splits.test is not None
        return splits.train, splits.test

    def recipe(self, entrant: Entrant) -> Recipe:
        """As it is run: its own changes, then those asked for, then those of a smoke test."""
        recipe = get_recipe(entrant.recipe).replace(**entrant.changes).replace(**self.changes)
        return recipe.replace(**SMOKE) if self.smoke else recipe

    def speedrun(self, entrant: Entrant, train: ImageDataset, num_steps: int | None = None, **more: bool) -> Speedrun:
        """An entrant that is built, and a line that says what that took."""
        recipe, steps = self.recipe(entrant), 2 if self.smoke else num_steps
        speedrun = Speedrun(
            recipe,
            train,
            steps or steps_for_epochs(self.epochs or entrant.epochs, len(train), recipe.batch_size),
            Precision(entrant.precision, self.device),
            notify=lambda text: self.log({"kind": "note", "note": text}),
            **more,
        )
        seconds = speedrun.build()
        self.log({"kind": "build", "name": entrant.recipe, "build_seconds": round(seconds, 3), **speedrun.facts()})
        return speedrun


def race(
    session: Session,
    entrants: Mapping[str, Entrant],
    data: str,
    target: float,
    wanted: int,
    most: int,
    tta: str | None = None,
    until: float = 0.0,
) -> None:
    """Trials of all entrants in turns, until there are ``most`` of each or ``until`` seconds are left."""
    train, test = session.read(data)
    contestants = {name: session.speedrun(entrant, train) for name, entrant in entrants.items()}
    rounds = [session.deadline.elapsed()]

    def enough() -> bool:
        rounds.append(session.deadline.elapsed())
        slowest = max(after - before for before, after in pairwise(rounds))
        return session.deadline.remaining() - until < MARGIN * slowest + END_SECONDS

    trials = time_to_accuracy(
        contestants,
        test,
        seeds=range(2 if session.smoke else most),
        log=lambda entry: session.log({**entry, "target": target, "commit": session.commit, "data": data}),
        tta=tta,
        should_stop=enough,
    )
    for name, of_one in trials.items():
        counts = {"n": len(of_one), "wanted": wanted, "enough": len(of_one) >= wanted}
        figures = {
            "mean_accuracy": round(fmean(trial.accuracy for trial in of_one), 6),
            "mean_seconds": round(fmean(trial.seconds for trial in of_one), 5),
        }
        session.log({"kind": "end", "name": name, "data": data, "target": target, **counts, **figures})


def train(
    session: Session,
    data: str,
    recipe: str,
    target: float,
    budget_seconds: float = BUDGET_SECONDS,
    train_limit: int | None = None,
) -> None:
    """One training against the clock, scored afterwards on the whole test split, untimed."""
    path = session.path(data)
    budget = min(budget_seconds, session.deadline.remaining() - SCORING_SECONDS)
    changes = {**session.changes, **({"width": 8, "batch_size": 16} if session.smoke else {})}
    run = timebox.train(
        path,
        **({"steps": 3} if session.smoke else {"budget": budget}),
        recipe=recipe,
        settings=[f"{name}={json.dumps(value)}" for name, value in changes.items()],
        train_limit=min(train_limit, SMOKE_IMAGES // 2) if session.smoke and train_limit else train_limit,
        val="none",
        test="none",
        out=session.scratch / f"run-{recipe}-{data}-{train_limit}",
        overwrite=True,
    )
    evaluation = timebox.evaluate(run, path, split="test")
    told = {name: value for name, value in run.summary.items() if not name.startswith(("val_", "test_"))}
    session.log(
        {
            "kind": "trial",
            "name": recipe,
            **told,
            "data": data,
            "seed": 0,
            "n": 1,
            "accuracy": evaluation.accuracy,
            "tta": evaluation.tta,
            "test_images": evaluation.num_images,
            "target": target,
        }
    )


WAYS = ("eager", "replayed")
AIRBENCH = Entrant("airbench94", epochs=8)
# Images that grow from 24 to 32 pixels, as auto's do: an epoch takes a fifth less time and teaches a little less.
GROWING: Mapping[str, Value] = {"start_size": 0.75, "full_size_at": 0.6}
ENTRANTS_94 = {
    "airbench94": AIRBENCH,
    **{f"growing, {epochs} epochs": Entrant("airbench94", epochs, changes=GROWING) for epochs in (8.5, 9.0)},
}


def step(session: Session) -> None:
    """Milliseconds of a step, replayed and eager; matrix products; the share of them that a step reaches."""
    peaks = {name: matmul_flops(session, name) for name in ("fp32", "tf32", "fp16", "bf16")}
    session.log({"kind": "matmul", "teraflops": {name: round(flops / 1e12, 2) for name, flops in peaks.items()}})
    train, _ = session.read("cifar10")
    height, width, channels = train.image_shape
    for entrant in (AIRBENCH, Entrant("haet2021", epochs=1)):
        ways = {way: session.speedrun(entrant, train, num_steps=100, recorded=way == "replayed") for way in WAYS}
        seconds: dict[str, list[float]] = {way: [] for way in WAYS}
        for number in range(1 if session.smoke else 6):
            for way in WAYS if number % 2 else reversed(WAYS):
                ways[way].prepare(seed=0)
                seconds[way].append(ways[way].train() / ways[way].num_steps)
        for way, speedrun in ways.items():
            flops = count_flops(speedrun.model, (channels, height, width))
            speed = speedrun.recipe.batch_size / median(seconds[way])
            figures = {
                "ms_per_step": round(1000 * median(seconds[way]), 4),
                "ms_of_each_round": [round(1000 * value, 4) for value in seconds[way]],
                "images_per_second": round(speed, 1),
                "mflop_per_image": round(flops / 1e6, 1),
                "share_of_peak": round(speed * flops / peaks[entrant.precision], 4),
            }
            session.log({"kind": "step", "name": f"{entrant.recipe} {way}", **figures, **speedrun.facts()})


def matmul_flops(session: Session, name: str) -> float:
    """Operations per second of large matrix products of random numbers."""
    size = 64 if session.smoke else 8192
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(name, torch.float32)
    generator = torch.Generator(session.device).manual_seed(0)
    a, b = (torch.randn(size, size, generator=generator, device=session.device).to(dtype) for _ in range(2))
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
    try:
        return 2 * size**3 / fastest_seconds(lambda: a @ b, session.device, limit_seconds=5.0, max_repeats=20)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def cifar10_94(session: Session) -> None:
    """CIFAR-10 to 94 %: the record's recipe, beside timebox's own fastest; 50 trials or more."""
    race(session, ENTRANTS_94, "cifar10", target=0.94, wanted=50, most=120)


def cifar10_95_cifar100_75(session: Session) -> None:
    """CIFAR-10 to 95 %, then CIFAR-100 to 75 % without test-time augmentation; 20 trials or more of each."""
    # airbench95 is twice as wide at its ends and trains for 15 epochs of SGD; half as wide again and 16 come closest.
    wider = {"airbench94, width 96": Entrant("airbench94", epochs=16, changes={"width": 96})}
    race(session, wider, "cifar10", target=0.95, wanted=20, most=40, until=session.deadline.remaining() / 2)
    widest = {"airbench94, width 128": Entrant("airbench94", epochs=16, changes={"width": 128})}
    race(session, widest, "cifar100", target=0.75, wanted=20, most=40, tta="none")


def cifar10_96(session: Session) -> None:
    """CIFAR-10 to 96 %; 10 trials or more."""
    # airbench96: 128, 384 and 512 channels, one more convolution in each group, shifts by 4, cutout of 12, 37 epochs.
    changes: dict[str, Value] = {"width": 128, "crop_padding": 4, "cutout_size": 12}
    race(
        session,
        {"airbench94, width 128": Entrant("airbench94", epochs=40, changes=changes)},
        "cifar10",
        target=0.96,
        wanted=10,
        most=20,
    )


def budget_cifar10(session: Session) -> None:
    """CIFAR-10 in a budget of 8 minutes, recipe auto."""
    train(session, "cifar10", "auto", target=0.95)


def budget_cifar100(session: Session) -> None:
    """CIFAR-100 in a budget of 8 minutes, recipe auto."""
    train(session, "cifar100", "auto", target=0.78)


def budget_cifar10_5000(session: Session) -> None:
    """CIFAR-10 cut to 5,000 training images in a budget of 8 minutes, recipe auto."""
    train(session, "cifar10", "auto", target=0.87, train_limit=5000)


def superconvergence(session: Session) -> None:
    """CIFAR-10, ResNet-18 under one large cycle, no augmentation, in 300 seconds."""
    train(session, "cifar10", "superconvergence", target=0.85, budget_seconds=300.0)


def haet2021(session: Session) -> None:
    """CIFAR-10 cut to 5,000 training images in a budget of 8 minutes, the competition entry."""
    train(session, "cifar10", "haet2021", target=0.87, train_limit=5000)


def precision(session: Session) -> None:
    """The record's recipe in fp32, bf16 and fp16: seconds, images per second, accuracy."""
    entrants = {name: Entrant("airbench94", epochs=8, precision=name) for name in PRECISIONS}
    race(session, entrants, "cifar10", target=0.94, wanted=10, most=30)


CHUNKS: dict[str, Callable[[Session], None]] = {
    "step": step,
    "cifar10-94": cifar10_94,
    "cifar10-95-cifar100-75": cifar10_95_cifar100_75,
    "cifar10-96": cifar10_96,
    "budget-cifar10": budget_cifar10,
    "budget-cifar100": budget_cifar100,
    "budget-cifar10-5000": budget_cifar10_5000,
    "superconvergence": superconvergence,
    "haet2021": haet2021,
    "precision": precision,
}


def made_up(path: Path) -> Path:
    """Images whose brightness tells their class, in an .npz file."""
    random = np.random.default_rng(0)
    arrays = {}
    for split in ("train", "test"):
        labels = np.arange(SMOKE_IMAGES) % SMOKE_CLASSES
        noise = random.integers(0, 100, (SMOKE_IMAGES, SMOKE_SIDE, SMOKE_SIDE, 3))
        arrays[f"x_{split}"] = (noise + 60 * labels[:, None, None, None]).astype(np.uint8)
        arrays[f"y_{split}"] = labels
    np.savez(path, **arrays)
    return path


def summary(path: Path) -> None:
    """Print what the races of a file come to, a line for each entrant."""
    races: dict[tuple[str, str, str, float], list[Trial]] = {}
    for text in path.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        if line["kind"] == "trial" and "train_seconds" in line:
            key = (line["chunk"], line["data"], line["name"], line["target"])
            races.setdefault(key, []).append(Trial.of(line))
    for (chunk, data, name, target), trials in races.items():
        found = summarize(name, trials, target)
        accuracy, seconds = found.accuracy, found.seconds
        spread = "" if accuracy.sd is None else f" (SD {100 * accuracy.sd:.2f}, p {found.p:.2g})"
        verdict = "reached" if found.reached else "missed"
        print(
            f"{chunk:<24} {data:<9} {name:<22} n {accuracy.n:>3}  {100 * (accuracy.mean or 0):.2f} %{spread}  "
            f"{100 * target:.0f} % {verdict}  {seconds.mean:.3f} s"
        )


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("chunks", nargs="*", metavar="CHUNK", help="names or numbers, as --list shows them")
    parser.add_argument("--list", action="store_true", help="show the chunks and end")
    parser.add_argument("--summary", type=Path, metavar="FILE", help="show what the lines of FILE come to, and end")
    parser.add_argument("--data", type=Path, help="the folder that holds CIFAR-10 and CIFAR-100 as published")
    parser.add_argument("--out", type=Path, help="the file that lines are appended to")
    parser.add_argument("--seconds", type=float, default=540.0, help="for each chunk (%(default)s)")
    parser.add_argument("--commit", help="of the code, recorded in each line")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="changed in every recipe")
    parser.add_argument("--epochs", type=float, help="in place of those of every entrant of a race")
    parser.add_argument("--smoke", action="store_true", help="made-up images on the CPU, in seconds")
    arguments = parser.parse_args(words)
    names = list(CHUNKS)
    if arguments.list:
        for number, (name, chunk) in enumerate(CHUNKS.items()):
            print(f"{number}  {name:<24} {(chunk.__doc__ or '').strip()}")
        return
    if arguments.summary:
        summary(arguments.summary)
        return
    chosen = [names[int(word)] if word.isdigit() and int(word) < len(names) else word for word in arguments.chunks]
    if unknown := [name for name in chosen if name not in CHUNKS]:
        parser.error(f"no chunk {', '.join(unknown)}; --list shows them")
    if not chosen or arguments.out is None:
        parser.error("give a chunk and --out, or --list")
    if not arguments.smoke and not torch.cuda.is_available():
        parser.error("torch finds no CUDA GPU here; --smoke runs on the CPU")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(chosen):
        # The first one's clock began with the process, as whoever limits it counts.
        deadline = Deadline(arguments.seconds) if number else Deadline.since_process_start(arguments.seconds)
        with tempfile.TemporaryDirectory() as scratch, limit_threads_to_container():
            session = Session(
                chunk=name,
                data=arguments.data,
                out=arguments.out,
                deadline=deadline,
                smoke=arguments.smoke,
                commit=arguments.commit,
                changes=parse_settings(arguments.set),
                epochs=arguments.epochs,
                device=torch.device("cpu" if arguments.smoke else "cuda"),
                scratch=Path(scratch),
            )
            CHUNKS[name](session)
            session.log({"kind": "done", "elapsed_seconds": round(deadline.elapsed(), 1)})


if __name__ == "__main__":
    main()
