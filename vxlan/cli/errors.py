"""How a command ends: one line on standard error and an exit status, never a traceback."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

FAILED, USAGE, NOT_RUNNING, INTERRUPTED = 1, 2, 3, 130


class Failure(click.ClickException):
    """The command cannot do what it was asked; the text names cause and remedy."""

    def __init__(self, text: str, status: int = FAILED) -> None:
        super().__init__(text)
        self.status = status


class Cli(click.Group):
    """The outermost group: turns whatever ends a command into a line and a status."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> NoReturn:
        """Run one command line and exit."""
        try:
            status = super().main(
                args, prog_name or "pyvxlan", complete_var, standalone_mode=False, **extra
            )
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.message, err=True)
            status = USAGE
        except click.UsageError as error:
            status = _complain(_usage_text(error), USAGE)
        except Failure as error:
            status = _complain(error.format_message(), error.status)
        except click.ClickException as error:
            status = _complain(error.format_message(), FAILED)
        except click.Abort:
            status = INTERRUPTED
        except Exception as error:
            status = _complain(_bug_text(error), FAILED)
        sys.exit(status if isinstance(status, int) else 0)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command and write out all that it printed.

        A reader that has seen enough (`pyvxlan fdb show | head`) is no failure.
        """
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            _discard_stdout()
            return 0
        except OSError as error:
            _discard_stdout()
            raise Failure(f"{error.filename or 'standard output'}: {error.strerror}") from error
        return result


def _complain(text: str, status: int) -> int:
    with contextlib.suppress(OSError):
        click.echo(f"pyvxlan: {' '.join(text.split())}", err=True)
    return status


def _usage_text(error: click.UsageError) -> str:
    command = error.ctx.command_path if error.ctx else "pyvxlan"
    message = error.format_message().rstrip(".").replace(". Did you mean", ": did you mean")
    message = message[:1].lower() + message[1:]
    return message if message.endswith("?") else f"{message}: see `{command} --help`"


def _bug_text(error: Exception) -> str:
    if os.environ.get("PYVXLAN_DEBUG"):
        raise error
    if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("vxlan"):
        return f"the Python package {error.name} is missing: `pip install {error.name}`"
    return (
        f"unexpected {type(error).__name__}: {error}: "
        "a bug; PYVXLAN_DEBUG=1 shows where, please report it"
    )


def _discard_stdout() -> None:
    """Let the flush at interpreter exit find a place that takes everything."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
