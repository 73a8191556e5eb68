"""Failures of a command: one line on stderr and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

FAILED, INTERRUPTED = 1, 130  # 130 is the shells' 128 + SIGINT


class CommandError(Exception):
    """A command failed; the text says why and what to change."""

    exit_code = FAILED


class BadOption(CommandError):
    """An option has no valid meaning, alone or beside another; nothing was sent."""


class Interrupted(CommandError):
    """Ctrl-C ended the command; the text says how to go on."""

    exit_code = INTERRUPTED


@contextmanager
def on_one_line(*expected: type[Exception]) -> Iterator[None]:
    """Turns CommandError, OSError, Ctrl-C and the exceptions named into a line on stderr and an exit code."""
    try:
        yield
    except CommandError as error:
        fail(str(error), error.exit_code)
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error))
    except KeyboardInterrupt:
        fail("interrupted: run the same command again", INTERRUPTED)
    except expected as error:
        fail(str(error))


def fail(message: str, exit_code: int = FAILED) -> None:
    """Print the message and end the command.

    Raises:
        typer.Exit: always.
    """
    print(f"posegate: {message}", file=sys.stderr)
    raise typer.Exit(exit_code)
