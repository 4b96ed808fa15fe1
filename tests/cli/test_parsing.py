"""What the command line accepts, and the words with which it refuses the rest."""

import shlex

import pytest

from timebox.cli import VERBS, parse
from timebox.cli.parsing import join_negative_values
from timebox.configs.config import did_you_mean
from timebox.configs.options import read_split_size

from .conftest import Command

VERBS_TOLD = ", ".join(VERBS)
REFUSALS = [
    (
        "",
        f"timebox: error: say what to do: {VERBS_TOLD};",
    ),
    (
        "trian digits",
        f"is not one of {VERBS_TOLD}; did you mean 'train'?",
    ),
    ("--verson", "timebox: error: there is no option --verson; did you mean '--version'?"),
    ("train", "timebox train: error: say how long to train, for instance --budget 10m"),
    ("train digits", "say how long to train, for instance --budget 10m"),
    ("train digits --budget 10m --steps 5", "--budget and --steps exclude each other"),
    ("train digits --budget 10x", "budget '10x' is not a duration; write it like 90s, 10m or 1h30m"),
    ("train digits --budget -10m", "budget '-10m' is negative; write it like 90s, 10m or 1h30m"),
    ("train digits --budget=-10m", "budget '-10m' is negative"),
    ("train digits --budget 0", "budget '0' must be longer than zero"),
    ("train digits --budget", "argument --budget: expected one argument"),
    ("train digits --bugdet 10m", "there is no option --bugdet; did you mean '--budget'?"),
    ("train digits --budge=10m", "there is no option --budge; did you mean '--budget'?"),
    ("train digits --steps ten", "--steps 'ten' must be a whole number of at least 1"),
    ("train digits --steps 0", "--steps '0' must be a whole number of at least 1"),
    ("train digits --steps -3", "--steps '-3' must be a whole number of at least 1"),
    ("train digits --steps 2 --seed -1", "--seed '-1' must be a whole number of at least 0"),
    ("train digits --steps 2 --train-limit 0", "--train-limit '0' must be a whole number of at least 1"),
    ("train digits --steps 2 --max-bad-share 2", "--max-bad-share '2' must be a number of at least 0 and at most 1"),
    ("train digits --steps 2 --max-bad-share x", "--max-bad-share 'x' must be a number of at least 0 and at most 1"),
    ("train digits --steps 2 --device cdua", "'cdua' must be one of auto, cpu, cuda; did you mean 'cuda'?"),
    ("train digits --steps 2 --precision fp61", "'fp61' must be one of auto, fp32, bf16, fp16; did you mean 'fp16'?"),
    ("train digits photos --steps 2", "unexpected argument 'photos'; `timebox train --help` lists what is allowed"),
    ("evaluate", "timebox evaluate: error: the following arguments are required: RUN, DATA"),
    ("evaluate runs/a digits --split tset", "'tset' must be one of test, val, train, all; did you mean 'test'?"),
    (
        "evaluate runs/a digits --tta miror",
        "'miror' must be one of recipe, none, mirror, shift, mirror_shift; did you mean 'mirror'?",
    ),
    ("predict runs/a", "the following arguments are required: IMAGE"),
    ("predict runs/a x.png --top 0", "--top '0' must be a whole number of at least 1"),
    ("predict runs/a x.png --format xml", "--format 'xml' must be one of csv, jsonl"),
    ("inspect photos --image-size 4", "--image-size '4' must be a whole number of at least 8"),
    ("recipes a b", "unexpected argument 'b'"),
]


@pytest.mark.parametrize(("command", "words"), REFUSALS, ids=[command or "nothing" for command, _ in REFUSALS])
def test_a_refusal_is_one_line_and_status_2(timebox: Command, command: str, words: str) -> None:
    outcome = timebox(*command.split())
    assert (outcome.status, outcome.out) == (2, "")
    assert words in outcome.err
    assert outcome.err.startswith("timebox")
    assert outcome.err.count("\n") == 1


def test_all_errors_are_in_one_line(timebox: Command) -> None:
    words = "train digits --steps 0 --seed -1 --device cdua --bugdet=3 --max-bad-share 2 --val 2"
    outcome = timebox(*words.split())
    assert outcome.status == 2
    for error in (
        "there is no option --bugdet; did you mean '--budget'?",
        "--steps '0' must be a whole number of at least 1",
        "--seed '-1' must be a whole number of at least 0",
        "--device 'cdua' must be one of auto, cpu, cuda; did you mean 'cuda'?",
        "--max-bad-share '2' must be a number of at least 0 and at most 1",
        "--val '2' must be a fraction between 0 and 1, a path, 'rest' or 'none'",
    ):
        assert error in outcome.err
    assert outcome.err.count("\n") == 1


def test_data_may_begin_with_a_minus() -> None:
    config = parse(["train", "--steps", "3", "--set=-x=1", "--", "-5"]).config
    assert (config.data, config.settings) == ("-5", ("-x=1",))


def test_a_refusal_under_json_is_an_object_too(timebox: Command) -> None:
    outcome = timebox("train", "digits", "--json", "--budget", "10x")
    assert outcome.status == 2
    assert list(outcome.json()) == ["error"]
    assert str(outcome.json()["error"]) in outcome.err


def test_every_option_of_train_arrives() -> None:
    given = """train photos --budget 10m --recipe haet2021 --set max_lr=0.4 --set width=32 --val rest --test 0.2
        --train-limit 5,000 --test-limit 1_000 --split-seed 1 --seed 2 --device cpu --precision bf16 --out runs/x
        --overwrite --json --data-dir /data --max-bad-share 0.5 --debug"""
    args = parse(given.split())
    expected = {
        "data": "photos", "budget": 600.0, "steps": None, "recipe": "haet2021", "settings": ("max_lr=0.4", "width=32"),
        "val": "rest", "test": 0.2, "train_limit": 5000, "test_limit": 1000, "split_seed": 1, "seed": 2,
        "device": "cpu", "precision": "bf16", "out": "runs/x", "overwrite": True, "data_dir": "/data",
        "max_bad_share": 0.5, "coarse": False,
    }  # fmt: skip
    assert {name: getattr(args.config, name) for name in expected} == expected
    assert (args.json, args.debug) == (True, True)


def test_settings_do_not_leak_from_one_command_to_the_next() -> None:
    parse(["train", "digits", "--steps", "3", "--set", "width=32"])
    assert parse(["train", "digits", "--steps", "3"]).config.settings == ()


def test_defaults_leave_choices_to_the_data() -> None:
    config = parse(["train", "digits", "--steps", "3"]).config
    assert [config.val, config.test, config.train_limit, config.test_limit, config.out] == [None] * 5
    assert (config.recipe, config.device, config.precision) == ("auto", "auto", "auto")
    assert (config.seed, config.split_seed) == (0, 0)


@pytest.mark.parametrize("verb", VERBS)
def test_help_explains_every_option(timebox: Command, verb: str) -> None:
    outcome = timebox(verb, "--help")
    assert (outcome.status, outcome.err) == (0, "")
    assert "examples:" in outcome.out
    assert f"timebox {verb}" in outcome.out
    options = [line for line in outcome.out.splitlines() if line.startswith("  --")]
    assert options, "no option is listed"


@pytest.mark.parametrize("verb", VERBS)
def test_the_examples_of_the_help_are_accepted(verb: str) -> None:
    """Those that begin with another program, such as curl, find or torchrun, are not parsed."""
    examples = [line for line in VERBS[verb].HELP.examples if line.startswith(f"timebox {verb}")]
    assert examples
    for example in examples:
        words = shlex.split(example, comments=True)[1:]
        end = min((words.index(sign) for sign in (">", "|") if sign in words), default=len(words))
        assert parse(words[:end]).verb == verb


@pytest.mark.parametrize("verb", VERBS)
def test_help_fits_a_terminal(timebox: Command, verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert [line for line in timebox(verb, "--help").out.splitlines() if len(line) > 80] == []


def test_help_lists_every_verb(timebox: Command) -> None:
    outcome = timebox("--help")
    assert outcome.status == 0
    assert len(VERBS) >= 5
    for verb in VERBS:
        assert f"\n    {verb} " in outcome.out


def test_a_value_may_begin_with_a_minus() -> None:
    assert join_negative_values(["train", "--budget", "-10m", "-5"]) == ["train", "--budget=-10m", "-5"]
    assert join_negative_values(["--seed=1", "-5", "--json", "--x"]) == ["--seed=1", "-5", "--json", "--x"]
    assert join_negative_values(["--seed", "-5", "--", "-5"]) == ["--seed=-5", "--", "-5"]


def test_a_split_is_a_fraction_where_it_reads_as_a_number() -> None:
    assert [read_split_size(text) for text in ("0.2", "1", "none", "rest", "photos/val")] == [
        0.2, 1.0, "none", "rest", "photos/val",
    ]  # fmt: skip


def test_suggestions_come_only_for_what_is_close() -> None:
    assert did_you_mean("cudda", ["cpu", "cuda"]) == "; did you mean 'cuda'?"
    assert did_you_mean("tpu-v4-pod", ["cuda"]) == ""


def test_whole_numbers_may_be_grouped() -> None:
    configs = [parse(["train", "digits", "--steps", text]).config for text in ("5000", "5,000", "5_000")]
    assert [config.steps for config in configs] == [5000] * 3
