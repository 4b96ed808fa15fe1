"""What :func:`timebox.benchmark` was asked for, checked before anything slow begins."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from timebox.clock import Deadline, format_duration, parse_budget
from timebox.data.named_datasets import NAMES
from timebox.errors import BudgetError, RunError, UsageError
from timebox.evaluation.tta import check_tta
from timebox.jobs.config import TrainConfig, check_train_config, image_form
from timebox.jobs.data import DataConfig, SplitSize

SCORES = ("val", "test")


@dataclass(frozen=True)
class Contender:
    """A recipe with settings of its own: one of those that are compared.

    Attributes:
        label: what it is called in results: the words it was given in, of a file only its name.
    """

    label: str
    recipe: str
    settings: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> "Contender":
        """From a text such as ``"haet2021 width=32 max_lr=0.4"``: a recipe, then what to set in it."""
        words = text.split()
        num_named = next((place for place, word in enumerate(words) if "=" in word), len(words))
        recipe, settings = " ".join(words[:num_named]), tuple(words[num_named:])
        if not recipe:
            raise UsageError(f"recipe {text!r} must begin with auto, a name or a .toml file, before any FIELD=VALUE")
        name = Path(recipe).name if recipe.endswith(".toml") else recipe
        return cls(" ".join((name, *settings)), recipe, settings)

    @property
    def file_name(self) -> str:
        """The label as a file may be called."""
        return re.sub(r"[^\w.=+,-]+", "-", self.label.removesuffix(".toml"))


@dataclass(frozen=True)
class Asked:
    """The arguments of :func:`timebox.benchmark` that decide what is measured; their meaning is written there."""

    data: str
    recipes: tuple[str, ...]
    seeds: int
    trial_budget: str
    settings: tuple[str, ...]
    train_limit: int | None
    split_seed: int
    val: SplitSize
    coarse: bool
    data_dir: str | None
    max_bad_share: float
    device: str
    precision: str
    score: str
    tta: str

    @property
    def trial_seconds(self) -> float:
        """The budget of one trial."""
        return parse_budget(self.trial_budget)

    @property
    def contenders(self) -> tuple[Contender, ...]:
        """Those that are compared, the first being what the others are compared with."""
        return tuple(Contender.of(text) for text in self.recipes)

    @property
    def source(self) -> DataConfig:
        """The data as each trial is to divide them."""
        return DataConfig(self.data, self._val, "none", self.train_limit, None, self.split_seed, self.coarse)

    @property
    def _val(self) -> SplitSize:
        if self.score == "test":
            return "none"
        return "rest" if self.val is None and self.train_limit is not None else self.val

    def check(self) -> None:
        """Raise UsageError for what cannot work, all wrong recipes and fields together."""
        self._check_trial_budget()
        if self.seeds < 1:
            raise UsageError(f"seeds {self.seeds} must be at least 1: each is one block of trials")
        if not self.recipes:
            raise UsageError("give at least one recipe, for instance --recipe auto")
        if self.score not in SCORES:
            raise UsageError(f"score {self.score!r} is unknown; use {', '.join(SCORES)}")
        if self.tta != "recipe":
            check_tta(self.tta)
        if self.score == "test" and self.val not in (None, "none"):
            raise UsageError("val cannot be given with score test: all training images are trained on then")
        if self.score == "val" and self.val == "none":
            raise UsageError("val 'none' leaves nothing to score: hold images out, or use --score test for a record")
        self._check_contenders()

    def _check_trial_budget(self) -> None:
        try:
            check_train_config(
                TrainConfig(self.source, "auto", (), 0, self.precision, None), Deadline(self.trial_seconds)
            )
        except BudgetError as error:
            raise BudgetError(f"trial_{error}") from error

    def _check_contenders(self) -> None:
        problems, taken = [], set()
        for text in self.recipes:
            try:
                contender = Contender.of(text)
                if contender.file_name in taken:
                    problems.append(f"recipe {contender.label!r} is given twice: two of one name cannot be told apart")
                taken.add(contender.file_name)
                request = self.request(contender, 0)
                image_form(request.recipe, request.settings)
            except UsageError as error:
                if str(error) not in problems:
                    problems.append(str(error))
        if problems:
            raise UsageError("; ".join(problems))

    def request(self, contender: Contender, seed: int) -> TrainConfig:
        """What one trial asks of :func:`timebox.train`. A contender's own settings go before those of all."""
        settings = (*self.settings, *contender.settings)
        return TrainConfig(self.source, contender.recipe, settings, seed, self.precision, None, scoring=False)

    def command(self) -> str:
        """The command that asks for it, paths cut to their last part."""
        words = ["timebox", "benchmark", self.data]
        words += [word for contender in self.contenders for word in ("--recipe", contender.label)]
        words += ["--seeds", str(self.seeds), "--trial-budget", self.trial_budget]
        words += self.options(self.settings)
        if self.val is not None:
            words += ["--val", str(self.val)]
        return shortened([*words, "--score", self.score, *(["--tta", self.tta] if self.tta != "recipe" else [])])

    def options(self, settings: Sequence[str]) -> list[str]:
        """Options that a benchmark and each of its trials take alike, those at their defaults left out."""
        words = [word for setting in settings for word in ("--set", setting)]
        if self.train_limit is not None:
            words += ["--train-limit", str(self.train_limit)]
        if self.split_seed:
            words += ["--split-seed", str(self.split_seed)]
        if self.precision != "auto":
            words += ["--precision", self.precision]
        return words + ["--coarse"] * self.coarse + self.reading_options()

    def reading_options(self) -> list[str]:
        """Options that also `timebox evaluate` takes."""
        words = ["--device", self.device] if self.device != "auto" else []
        words += ["--data-dir", self.data_dir] if self.data_dir else []
        return words + (["--max-bad-share", str(self.max_bad_share)] if self.max_bad_share != 0.1 else [])

    def as_dict(self) -> dict[str, object]:
        """Ready for JSON; read back by :meth:`from_dict`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, object], where: str) -> "Asked":
        """From what :meth:`as_dict` gave. Raises RunError where it is damaged."""
        if set(values) != {field.name for field in fields(cls)}:
            raise RunError(f"{where} is damaged: what was asked for is incomplete")
        lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        try:
            asked = cls(**{**values, **lists})  # type: ignore[arg-type]  # checked below
            asked.check()
        except (TypeError, ValueError, AttributeError) as error:
            raise RunError(f"{where} is damaged, or what it names is gone: {error}") from error
        return asked


def absolute(place: str | Path) -> str:
    """A path that means the same from any directory; the name of a data set, and what is no path, stay as they are."""
    is_name = isinstance(place, str) and place in NAMES
    path = Path(place).expanduser()
    return str(place) if is_name or not path.exists() else str(path.absolute())


def absolute_recipe(text: str) -> str:
    """A contender's text, its file by a path that means the same from any directory."""
    contender = Contender.of(text)
    recipe = absolute(contender.recipe) if contender.recipe.endswith(".toml") else contender.recipe
    return " ".join((recipe, *contender.settings))


def budget_text(budget: str | float) -> str:
    """A budget as it was written, a number of seconds as people write it."""
    if isinstance(budget, str) and not budget.replace(".", "").isdigit():
        return budget.strip()
    seconds = parse_budget(budget)
    return f"{seconds:g}s" if seconds % 60 else format_duration(seconds)


def shortened(words: Sequence[str]) -> str:
    """A command as one would type it, paths cut to their last part."""
    return " ".join(_quoted(Path(word).name if "/" in word else word) for word in words)


def _quoted(word: str) -> str:
    return f'"{word}"' if " " in word or not word else word
