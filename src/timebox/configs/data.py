"""``DataConfig``: the data set of a run and how it is split."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from timebox.configs import options
from timebox.configs.config import Config, Rule
from timebox.errors import RunError, UsageError


class DataConfig(Config, frozen=True):
    """The options of :func:`timebox.train` that decide which images are used for what; documented there."""

    data: options.Data
    val: options.Val = None
    test: options.Test = None
    train_limit: options.TrainLimit = None
    test_limit: options.TestLimit = None
    split_seed: options.SplitSeed = 0
    coarse: options.Coarse = False
    class_depth: options.ClassDepth = None
    group_by: options.GroupBy = None

    rules: ClassVar[tuple[Rule, ...]] = ((("test",), options.check_test_split),)

    @classmethod
    def of(cls, config: Any, **changes: object) -> "DataConfig":
        """The data options of a verb's config, with other values for some."""
        shared = {name: getattr(config, name) for name in cls.__struct_fields__ if hasattr(config, name)}
        return cls(**{**shared, **changes})

    @classmethod
    def of_run(cls, config: Mapping[str, object], path: Path) -> "DataConfig":
        """The data options recorded in a run's model.json. Raises RunError if they are damaged."""
        source = config.get("source")
        recorded = {"group_by": None, "class_depth": None, **source} if isinstance(source, dict) else {}
        if set(recorded) != set(cls.__struct_fields__):
            raise RunError(f"model.json of {str(path)!r} is damaged: its source is incomplete")
        try:
            return cls(**recorded)
        except UsageError as error:
            raise RunError(f"model.json of {str(path)!r} is damaged: its source: {error}") from error
