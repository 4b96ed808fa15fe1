"""The command line: `timebox VERB …`. One file per verb; a new verb is a config, one file and its line in `VERBS`.

Nothing heavy is imported here or while the parsers are built, so that `timebox --help` answers at once: a verb
imports torch and the rest when it runs.
"""

import argparse
import contextlib
import os
import sys
import time
import traceback
from collections.abc import Sequence
from typing import Protocol

from timebox.cli import (
    benchmark,
    compare,
    completion,
    doctor,
    evaluate,
    export,
    inspect,
    lr_find,
    plan,
    predict,
    recipes,
    report,
    serve,
    train,
    tune,
    watch,
)
from timebox.cli import exit_status as exits
from timebox.cli.formatting import json_line, say, write
from timebox.cli.parsing import Parser, Subparsers, VerbHelp, VerbsFormatter, add_verb, join_negative_values
from timebox.cli.signals import StopSignals, stop_signals
from timebox.cli.streams import guard_stderr, make_encodable, open_closed_streams
from timebox.configs.arguments import config_from_arguments
from timebox.configs.config import did_you_mean
from timebox.configs.storage_url import hide_passwords, is_url
from timebox.errors import (
    NO_ANSWER,
    OutputError,
    RankFailureError,
    TimeboxError,
    UsageError,
    flags_in_messages,
    one_line,
    without_controls,
    without_passwords,
)
from timebox.machine import is_torchrun, is_worker_rank
from timebox.version import VERSION


class Verb(Protocol):
    """The module of a verb."""

    HELP: VerbHelp

    def run(self, args: argparse.Namespace) -> int:
        """Does the work that `args.config` asks for, and returns the exit status."""


VERBS: dict[str, Verb] = {
    "plan": plan,
    "train": train,
    "evaluate": evaluate,
    "predict": predict,
    "inspect": inspect,
    "report": report,
    "compare": compare,
    "export": export,
    "serve": serve,
    "watch": watch,
    "benchmark": benchmark,
    "lr-find": lr_find,
    "tune": tune,
    "recipes": recipes,
    "doctor": doctor,
    "completion": completion,
}
# Seconds that worker ranks wait before they exit with a refusal: torchrun ends the main rank, which reports the error,
# together with the first rank that exits.
WORKER_EXIT_DELAY_SECONDS = 2.0


def make_parser() -> tuple[Parser, Subparsers]:
    """The parser of all commands, and those of the verbs."""
    parser = Parser(
        prog="timebox",
        description="Give it labelled images and a deadline; before the clock runs out it hands you the best "
        "classifier your hardware could train.",
        epilog="`timebox VERB --help` explains a verb. First steps: timebox train digits --test 0.2 --budget 60s",
        allow_abbrev=False,
        formatter_class=VerbsFormatter,
    )
    parser.add_argument("--version", action="version", version=f"timebox {VERSION}", help="print the version and leave")
    subparsers = parser.add_subparsers(metavar="VERB", dest="verb", parser_class=Parser)
    for name, verb in VERBS.items():
        add_verb(subparsers, name, verb.HELP).set_defaults(run_verb=verb.run)
    return parser, subparsers


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments of one command: `config`, the verb's config; `run_verb`, the verb's function; `verb`, `debug` and,
    for most verbs, `json`.

    Raises UsageError, one line with all errors in the options, and SystemExit after `--help` and `--version`.
    """
    parser, subparsers = make_parser()
    args, extras = parser.parse_known_args(join_negative_values(argv))
    if args.verb is None:
        if extras:
            raise UsageError(f"there is no option {extras[0]}{did_you_mean(extras[0], parser._option_string_actions)}")
        raise UsageError(f"say what to do: {', '.join(VERBS)}; `timebox --help` explains each")
    args.config = config_from_arguments(VERBS[args.verb].HELP.config, args, subparsers.choices[args.verb], extras)
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status, as :mod:`timebox.cli.exit_status` lists them.

    As a program, with `argv` None, it ends the process instead: Python takes over a second to tear torch down, which
    would be taken from every budget. All files are closed by then.
    """
    if argv is None:
        open_closed_streams()
        guard_stderr()
        _share_processors()
    status = run_command(sys.argv[1:] if argv is None else argv)
    if argv is None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(status)
    return status


def _share_processors() -> None:
    """Make OpenMP's threads sleep, rather than spin, soon after they begin to wait for each other. Called before
    torch loads OpenMP.

    If another process needs a core, a spinning thread keeps the thread that it waits for from running: beside a busy
    process small steps took 26 times as long. On an idle machine the difference is within the noise.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def run_command(argv: Sequence[str]) -> int:
    """Runs one command and returns its exit status; an exception is reported in one line."""
    make_encodable(sys.stdout, sys.stderr)
    with flags_in_messages(), stop_signals() as received:
        try:
            status = _guarded(argv, received)
        except KeyboardInterrupt:
            received.is_handled = True
            if not is_worker_rank():
                say(f"timebox: stopped: {'the run stands as it was' if '--resume' in argv else 'nothing was saved'}")
            status = exits.STOPPED + 2
    return exits.STOPPED + received.numbers[0] if received.numbers else status


def _guarded(argv: Sequence[str], received: StopSignals) -> int:
    """Parses and runs; every exception but KeyboardInterrupt becomes one line on stderr and an exit status.

    A stop signal may come out as another exception: a module that is interrupted while it is imported raises its own.
    """
    try:
        args = _parsed(argv)
        status: int = args.run_verb(args)
        sys.stdout.flush()
        return status
    except SystemExit as leaving:  # argparse after --help and --version
        return _flushed(argv, leaving.code if isinstance(leaving.code, int) else exits.DONE)
    except BrokenPipeError:  # `timebox … | head`: the reader has closed the pipe
        return exits.DONE
    except RankFailureError as error:
        # The main rank reports it, unless the main rank itself has failed.
        is_reported = is_worker_rank() and error.failed_ranks.get(0) != NO_ANSWER
        return exits.REFUSED if is_reported else _fail(argv, one_line(str(error)), exits.REFUSED)
    except TimeboxError as error:
        partly = isinstance(error, exits.PartlyWrittenError)
        return _fail(argv, one_line(str(error)), exits.LATE_OR_PARTLY_WRITTEN if partly else exits.REFUSED)
    except Exception as error:
        if received.numbers:
            raise KeyboardInterrupt from error
        if reason := _shortage(error):
            return _fail(argv, reason, exits.REFUSED)
        message = f"internal error: {type(error).__name__}: {error}; run again with --debug"
        return _fail(argv, " ".join(message.split()), exits.OWN_FAULT)


def _shortage(error: Exception) -> str:
    """A sentence for an error by which the machine says that it has no more memory or threads; else empty."""
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error)):
        return "memory ran out: end other programs, or raise the limit of this one (`ulimit -a`, or the container's)"
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return "no more threads can be started: memory, or the number of processes, is used up (see `ulimit -a`)"
    return ""


def _flushed(argv: Sequence[str], status: int) -> int:
    """The exit status after a text of argparse was printed: another one where it could not be written."""
    try:
        write("")
    except BrokenPipeError:
        return exits.DONE
    except OutputError as error:
        return _fail(argv, str(error), exits.REFUSED)
    return status


def _parsed(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments. Of several ranks only the main rank reports errors in them."""
    try:
        args = parse(argv)
        if is_torchrun() and args.verb != "train":
            raise UsageError(f"timebox {args.verb} runs in one process: start it without torchrun")
    except UsageError:
        if is_worker_rank():
            time.sleep(WORKER_EXIT_DELAY_SECONDS)
            raise SystemExit(exits.REFUSED) from None
        raise
    return args


def _fail(argv: Sequence[str], message: str, status: int) -> int:
    message = _without_passwords_of(argv, message)
    if "--debug" in argv:
        with contextlib.suppress(OSError):
            sys.stderr.write(without_controls(_without_passwords_of(argv, traceback.format_exc())))
    verb = next((word for word in argv if word in VERBS), None)
    say(f"timebox {verb}: error: {message}" if verb else f"timebox: error: {message}")
    if "--json" in argv:
        with contextlib.suppress(OSError):
            write(json_line({"error": message}))
    return status


def _without_passwords_of(argv: Sequence[str], text: str) -> str:
    """A text without the passwords of all URLs on the command line, wherever they were given."""
    for word in argv:
        value = word.partition("=")[2] if word.startswith("--") and "=" in word else word
        if is_url(value):
            text = hide_passwords(text, value)
    return without_passwords(text)
