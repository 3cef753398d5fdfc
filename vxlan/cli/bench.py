"""`pyvxlan bench`: overlays measured against each other on this machine."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from vxlan.cli import bench_remote, output
from vxlan.cli.bench_run import run
from vxlan.cli.errors import INTERRUPTED, Failure
from vxlan.cli.options import Seconds, json_option
from vxlan.cli.output import Cell, Column

if TYPE_CHECKING:
    from vxlan.bench.matrix import Results, Settings

F = TypeVar("F", bound=Callable[..., Any])

QUICK_BUDGET = 95.0
"""Seconds: with what comes before and after, `--quick` stays under two minutes."""

_TONE: dict[str, output.Tone] = {"ok": "good", "too noisy": "warn", "failed": "bad"}


def _words(_ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[str, ...]:
    """Names, each once.  No option means all of them; an option without a name is a mistake."""
    if text is None:
        return ()
    words = tuple(dict.fromkeys(filter(None, text.split(","))))
    if not words:
        raise click.BadParameter("it names nothing", param=param)
    return words


def _length_options(command: F) -> F:
    rounds = click.option(
        "--rounds", type=click.IntRange(1, 1000), default=5, show_default=True, help="Rounds."
    )
    seconds = click.option(
        "--seconds",
        type=Seconds(0.1, 60),
        default=1.0,
        show_default=True,
        help="Traffic of each sample.",
    )
    quick = click.option("--quick", is_flag=True, help="Under two minutes: less of everything.")
    return quick(rounds(seconds(command)))


@click.group(invoke_without_command=True)
@_length_options
@click.option("--overlays", callback=_words, metavar="A,B", help="Only these; see `bench list`.")
@click.option("--tests", callback=_words, metavar="A,B", help="Only these; see `bench list`.")
@click.option(
    "--mtu",
    "mtus",
    type=click.IntRange(1280, 65535),
    multiple=True,
    help="MTU of the underlay; may be repeated.  [default: 1500 and 9000]",
)
@click.option(
    "--wire/--no-wire",
    default=None,
    help="Every datagram a real packet, or offloads on.  [default: both]",
)
@click.option("--markdown", is_flag=True, help="Print tables of Markdown.")
@json_option
@click.pass_context
def bench(ctx: click.Context, /, as_json: bool, markdown: bool, **options: Any) -> int | None:
    """Measure overlays on this machine: two hosts as namespaces, all overlays in turn.

    Needs root.  Nothing outside the namespaces that it makes is touched, and all of
    them are removed, after Ctrl-C too.  What cannot run is a row that says why.

    \b
    pyvxlan bench --quick              under two minutes
    pyvxlan bench --overlays kernel,fastpath --tests tcp-1,rr --rounds 9
    pyvxlan bench --json > run.json    the rows, for scripts and for `bench report`
    """
    if ctx.invoked_subcommand is not None:
        return None
    if as_json and markdown:
        raise click.UsageError("--json and --markdown exclude each other")
    results = run(_settings(**options))
    _print_results(results, as_json, markdown)
    return INTERRUPTED if results.interrupted else 0


@bench.command("list")
@json_option
def list_(as_json: bool) -> None:
    """The overlays and tests, and which of them cannot run here."""
    from vxlan.bench.load import TESTS, present
    from vxlan.bench.overlays import OVERLAYS

    overlays = [(one.name, one.text, one.missing()) for one in OVERLAYS.values()]
    tests = [
        (test.name, test.text, "" if test.name in present() else "iperf3 not installed")
        for test in TESTS.values()
    ]
    if as_json:
        keys = ("name", "text", "missing")
        named = {"overlays": overlays, "tests": tests}
        output.emit_json(
            {
                word: [dict(zip(keys, row, strict=True)) for row in rows]
                for word, rows in named.items()
            }
        )
        return
    page = output.page()
    for title, rows in (("overlay", overlays), ("test", tests)):
        columns = [Column(title), Column("what it is"), Column("missing", fixed=False)]
        page.table(columns, rows)
        page.gap()


@bench.command()
@_length_options
@json_option
def claim(as_json: bool, quick: bool, rounds: int, seconds: float) -> int:
    """Does VXLAN add 10-20 % latency and take 50-75 % of the throughput, on this host?

    Measured for the kernel's driver, for pyvxlan and for docker's drivers, against the
    same containers without an overlay.
    """
    from vxlan.bench import claim as question
    from vxlan.bench.matrix import Settings
    from vxlan.bench.noise import machine
    from vxlan.bench.world import Kind

    overlays = (question.BARE, *question.OF)
    budget = QUICK_BUDGET if quick else None
    results = run(Settings(overlays, question.TESTS, (Kind(),), rounds, seconds, budget))
    found = question.answers(results)
    if as_json:
        answers = [one.as_dict() for one in found]
        output.emit_json(
            {
                "version": 1,
                "claim": question.CLAIM,
                "machine": machine(),
                "rounds_finished": results.rounds,
                "answers": answers,
                "conclusion": question.conclusion(found),
            }
        )
    else:
        click.echo(f'The claim: "{question.CLAIM}".  Here, against no overlay:')
        for one in found:
            click.echo(f"  {question.sentence(one)}")
        click.echo(f"So {question.conclusion(found)}.")
    _tell_missing(results)
    return INTERRUPTED if results.interrupted else 0


@bench.command("report")
@click.argument("run_json", metavar="RUN.JSON", type=click.Path(path_type=Path))
@click.option(
    "--memory",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="What `make bench` saved: adds the costs in memory.",
)
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path),
    default=Path("bench-report"),
    show_default=True,
    help="Where to write.",
)
def report_(run_json: Path, memory: Path | None, out: Path) -> None:
    """Draw a run that `pyvxlan bench --json` saved: one HTML page, and PNG and SVG files.

    Needs matplotlib: `pip install 'pyvxlan[bench]'`.
    """
    from vxlan.bench import memory as saved
    from vxlan.bench import page

    try:
        costs = saved.load(memory) if memory else []
    except (ValueError, OSError) as error:
        raise Failure(_what(error, memory)) from error
    try:
        result = json.loads(run_json.read_text())
        written = page.write(result, costs, out)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Failure(f"{run_json}: not saved by `pyvxlan bench --json`: {error}") from error
    except OSError as error:
        raise Failure(_what(error, out)) from error
    except ModuleNotFoundError as error:
        raise Failure(f"{error.name} is missing: `pip install 'pyvxlan[bench]'`") from error
    for path in written:
        click.echo(path)


def _what(error: Exception, path: Path | None) -> str:
    """One line that names the file."""
    if isinstance(error, OSError):
        return f"{error.filename or path}: {error.strerror}"
    return str(error)


bench.add_command(bench_remote.serve)
bench.add_command(bench_remote.remote)


# -- settings ------------------------------------------------------------------------------


def _settings(
    quick: bool,
    rounds: int,
    seconds: float,
    overlays: tuple[str, ...],
    tests: tuple[str, ...],
    mtus: tuple[int, ...],
    wire: bool | None,
) -> Settings:
    from vxlan.bench import load
    from vxlan.bench.matrix import Settings
    from vxlan.bench.overlays import OVERLAYS
    from vxlan.bench.world import Kind

    _check(overlays, OVERLAYS, "overlay")
    _check(tests, load.TESTS, "test")
    every = (True,) if quick else (True, False)
    wires = every if wire is None else (wire,)
    sizes = mtus or ((1500,) if quick else (1500, 9000))
    return Settings(
        overlays or tuple(OVERLAYS),
        tests or (load.QUICK if quick else load.present()),
        tuple(Kind(mtu, one) for mtu in dict.fromkeys(sizes) for one in wires),
        rounds,
        seconds,
        QUICK_BUDGET if quick else None,
    )


def _check(given: tuple[str, ...], known: Any, what: str) -> None:
    unknown = [word for word in given if word not in known]
    if unknown:
        raise click.UsageError(f"no {what} {', '.join(unknown)}: there are {', '.join(known)}")


# -- printing ------------------------------------------------------------------------------


def _print_results(results: Results, as_json: bool, markdown: bool) -> None:
    from vxlan.bench import report

    found = report.as_dict(results, _command_line())
    if as_json:
        output.emit_json(found)
    elif markdown:
        click.echo(report.markdown(found), nl=False)
    else:
        _print_tables(found)
    _tell_missing(results)


def _tell_missing(results: Results) -> None:
    if results.interrupted:
        output.note("bench: interrupted: these are the rounds that were finished")
    elif results.rounds < results.settings.rounds:
        output.note(
            f"bench: the time was up after {results.rounds} of {results.settings.rounds} rounds: "
            "the machine is busy: run it again, or without --quick"
        )


def _command_line() -> str:
    return " ".join([Path(sys.argv[0]).name.replace("__main__.py", "pyvxlan"), *sys.argv[1:]])


def _print_tables(found: dict[str, Any]) -> None:
    from vxlan.bench import report

    page = output.page()
    columns = [Column(title, right=title in report.RIGHT) for title in report.TITLES]
    columns[-1] = Column("verdict", fixed=False)
    for kind, rows in report.groups(found["rows"]):
        page.heading(str(kind))
        page.table(columns, [_toned(report.cells(row), row["verdict"]) for row in rows])
        page.gap()


def _toned(cells: tuple[str, ...], verdict: str) -> output.Row:
    return *cells[:-1], Cell(cells[-1], _TONE.get(verdict, "faint"))
