"""Options that several commands share."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import click

from vxlan import __version__

F = TypeVar("F", bound=Callable[..., Any])

_LEVEL = "vxlan.cli.verbosity"


def _add_verbosity(ctx: click.Context, _param: click.Parameter, value: int) -> int:
    """Sum up -v and -q, whether they stand before the command or behind it."""
    ctx.meta[_LEVEL] = ctx.meta.get(_LEVEL, 0) + value
    return value


def verbosity_options(command: F) -> F:
    """`-q` and `-v`, each as often as wanted."""
    quiet = click.option(
        "-q",
        "--quiet",
        count=True,
        expose_value=False,
        help="Say only what is wrong.",
        callback=lambda ctx, param, n: _add_verbosity(ctx, param, -n),
    )
    verbose = click.option(
        "-v",
        "--verbose",
        count=True,
        expose_value=False,
        help="Say more.",
        callback=_add_verbosity,
    )
    return verbose(quiet(command))


def verbosity() -> int:
    """How many -v less how many -q were given."""
    context = click.get_current_context(silent=True)
    return context.meta.get(_LEVEL, 0) if context else 0


def json_option(command: F) -> F:
    """`--json`: print the object of the API."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def name_argument(command: F) -> F:
    """`[NAME]`: which node, where more than one runs."""
    return click.argument("name", required=False, shell_complete=_complete_name)(command)


def node_option(command: F) -> F:
    """`--node NAME`, for commands whose arguments are something else."""
    return click.option(
        "-n",
        "--node",
        metavar="NAME",
        shell_complete=_complete_name,
        help="Which node, where more than one runs.",
    )(command)


def _complete_name(_ctx: click.Context, _param: click.Parameter, begun: str) -> list[str]:
    from vxlan import api

    return [name for name in api.running() if name.startswith(begun)]


version = click.version_option(__version__, prog_name="pyvxlan", message="%(prog)s %(version)s")


class Seconds(click.FloatRange):
    """A time in a range; NaN, which is in every range of click's, is in none here."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        found: float = super().convert(value, param, ctx)
        return found if math.isfinite(found) else self.fail(f"{value} is no time", param, ctx)
