"""The command line: verbs only. Exit codes: 0 done, 2 a user's mistake, 130 interrupted and saved, 1 a bug of ours."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click

from ganvas.cli import (  # noqa: F401
    bench,
    data,
    edit,
    evaluate,
    export,
    import_,
    inspect,
    look_up,
    profile,
    sample,
    scale,
    search,
    train,
)
from ganvas.cli.frame import Unread, cli, say, tell
from ganvas.errors import GanvasError, RecipeError, UsageError

# How torch says that a tensor is larger than any memory.
_NO_MEMORY = re.compile("can't allocate memory|Storage size calculation overflowed")


def main() -> NoReturn:
    """Run the command line and leave with its exit code."""
    import warnings

    # People want the sentence, not the line of ours that it came from.
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    # A stream that was closed before we began (`>&-`) is none; what is said to it is said to nobody.
    with Path(os.devnull).open("w", encoding="utf-8") as nobody:
        sys.stdout, sys.stderr = sys.stdout or nobody, sys.stderr or nobody
        sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command; the exit code."""
    as_json = "--json" in arguments
    try:
        code = cli.main(args=list(arguments), prog_name="ganvas", standalone_mode=False)
        return code if isinstance(code, int) else 0  # click returns the code of its Exit, and what a command returns
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 2
    except (KeyboardInterrupt, click.exceptions.Abort):
        say("stopped at once")  # `train` has said what is saved
        return leave("Interrupted", "stopped at once", 130, as_json)
    except (BrokenPipeError, Unread):
        return unheard()
    except Exception as error:
        if type(error).__name__ == "Interrupted":  # the engine's; importing it here would load torch
            return leave("Interrupted", str(error), 130, as_json)  # `train` has said how to go on
        mistake = as_mistake(error)
        if mistake is None:
            import traceback

            traceback.print_exc()
            if part_file := part_file_of(error):
                say(f"{type(error).__name__}: {part_file}\n  {error}\n  this is in a part of your own; mend it there")
                return leave(type(error).__name__, f"{part_file}: {error}", 2, as_json)
            say("This is a bug of ours. Please report it with the lines above and the command that you typed.")
            return leave("Bug", f"{type(error).__name__}: {error}", 1, as_json)
        if mistake.already_reported or (isinstance(mistake, RecipeError) and follows()):
            return 2
        say(str(mistake))
        if as_json:
            mistakes = mistake.problems if isinstance(mistake, RecipeError) else (mistake,)
            rows = [
                {
                    "type": type(problem).__name__,
                    "where": problem.where,
                    "problem": problem.problem,
                    "hint": problem.hint,
                }
                for problem in mistakes
            ]
            tell_if_possible(json.dumps({"errors": rows}, indent=1))
        return 2


def unheard() -> int:
    """The exit code where the reader of standard output has left."""
    with contextlib.suppress(OSError, ValueError):
        # Python flushes once more as it leaves; that must find somewhere to write to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)
    return 0


def tell_if_possible(text: str) -> None:
    """An error for scripts; standard output may be what the error is about."""
    with contextlib.suppress(OSError):
        tell(text)


def follows() -> bool:
    """Whether another process, the first of those that train together, finds the same mistake in the same recipe."""
    return any(os.environ.get(name, "0") not in ("", "0") for name in ("RANK", "SLURM_PROCID"))


def leave(kind: str, problem: str, code: int, as_json: bool) -> int:
    """The exit code; with `--json`, standard output says why in the form that mistakes have."""
    if as_json:
        tell_if_possible(
            json.dumps({"errors": [{"type": kind, "where": "", "problem": problem, "hint": ""}]}, indent=1)
        )
    return code


def part_file_of(error: Exception) -> str:
    """`file:line` where an error was raised by code of a `--parts` file."""
    trace, place = error.__traceback__, ""
    while trace is not None:
        if str(trace.tb_frame.f_globals.get("__name__", "")).startswith("ganvas_parts_"):
            place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


def as_mistake(error: Exception) -> GanvasError | None:
    """What a user can do about an error, or None where it is a bug of ours."""
    if isinstance(error, GanvasError):
        return error
    if isinstance(error, click.ClickException):
        text = error.format_message()
        command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "ganvas"
        return UsageError(text[:1].lower() + text[1:], where=command, hint=f"{command} --help")
    if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__ or _NO_MEMORY.search(str(error)):
        return UsageError(
            f"there is not enough memory: {str(error).splitlines()[0] if str(error) else 'none is left'}",
            hint="a smaller train.batch, data.size or network needs less",
        )
    if isinstance(error, OSError):
        return UsageError(
            error.strerror or str(error), where=str(error.filename or ""),
            hint="check the path, its permissions and the space on the disk",
        )  # fmt: skip
    return None
