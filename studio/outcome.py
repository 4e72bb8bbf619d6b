"""How a command ends: whatever went wrong becomes one sentence and one exit code."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable

from cyclopts import CycloptsError, MissingArgumentError, UnknownCommandError, UnusedCliTokensError

from domain.errors import BadInput, NotConfigured, OnModelError
from studio.telling import complain, end_progress, keep_traceback, print_json

OUR_BUG = 1
INTERRUPTED = 130
MACHINE_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EMFILE})
"""The machine says no; not our bug, and not a mistake in the manifest."""


def exit_code_of(call: Callable[[], int], *, as_json: bool) -> int:
    """Call, and turn what it raises into its exit code, sentences on stderr and, with `as_json`, a document."""
    try:
        code = call()
        sys.stdout.flush()  # here, where a full disk or a closed pipe still gets its sentence
        return code
    except BrokenPipeError:
        # Whoever read our output has seen enough, as `onmodel status neon-harbor | head -3` does.
        _let_go_of_stdout()
        return 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 (the last line of defence: each kind gets its sentence)
        code, message = _said(error)
    finally:
        end_progress()
    complain(message)
    try:
        if as_json:
            print_json({"exit_code": code, "errors": message.splitlines()})
        sys.stdout.flush()
    except OSError:
        _let_go_of_stdout()
    return code


def _let_go_of_stdout() -> None:
    """Nobody can take our output any more: without this, Python itself would complain of it at exit, with 120."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _said(error: Exception) -> tuple[int, str]:
    if isinstance(error, CycloptsError):
        return BadInput.exit_code, usage_sentence(error)
    if isinstance(error, OnModelError):
        return error.exit_code or OUR_BUG, error.message
    if isinstance(error, OSError) and error.errno in MACHINE_ERRORS:
        where = f" ({error.filename})" if error.filename else ""
        return NotConfigured.exit_code, f"{error.strerror}{where}: make room or give permission, then run this again."
    first = next(iter(str(error).splitlines()), "")
    kept = keep_traceback()
    return OUR_BUG, f"This is a bug of OnModel ({type(error).__name__}: {first}). Please send us {kept}."


def usage_sentence(error: CycloptsError) -> str:
    """What is wrong with a command line, and where its usage is told."""
    command = " ".join(("onmodel", *(error.command_chain or ())))
    match error:
        case UnknownCommandError():
            what = str(error).partition(" Available commands")[0].strip()
        case UnusedCliTokensError(unused_tokens=[first, *_]):
            what = f"{command} does not take {first!r}."
        case MissingArgumentError(argument=argument) if argument is not None:
            what = f"{command} needs a value for {error.keyword or argument.name}."
        case _:
            what = str(error).strip()
            what += "" if what.endswith((".", "?")) else "."
    return f"{what} See: {command} --help"
