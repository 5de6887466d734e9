"""`anatomy`: what a person types. Each command is a few lines here and a module in `anatomy.commands`.

Exit codes: 0 as it should be; 1 not intact, not up to date, or a job failed; 2 a mistake in what was asked
for; 3 another run is in progress.
"""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

# Nothing heavy here: --help answers at once, and a mistake is told before torch or Snakemake are loaded.

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    name="anatomy",
    help="Backdoor Anatomy: run a study, read its results, and check where each number comes from.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Study = Annotated[str, typer.Argument(help="The name of a file in config/, without .yaml.", metavar="STUDY")]


@contextlib.contextmanager
def _mistakes_told() -> Iterator[None]:
    """One message instead of a traceback for what the person at the keyboard can mend."""
    from anatomy.commands.check import check_folder
    from anatomy.commands.guard import Busy
    from anatomy.provenance.digest import ArtifactError
    from anatomy.spec.errors import SpecError

    try:
        check_folder()
        yield
    except (SpecError, ArtifactError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    except Busy as busy:
        typer.echo(f"error: {busy}", err=True)
        raise typer.Exit(3) from None


def _console() -> "Console":
    """Standard output; as wide as the terminal, and wide enough for a table where it is a file."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 120)


@app.command()
def run(
    study: Study = "embedded",
    targets: Annotated[
        list[str] | None,
        typer.Argument(help="Files or rules to make. Default: the whole study.", metavar="TARGET"),
    ] = None,
    profile: Annotated[
        str, typer.Option(help="Where jobs run: default (this machine), slurm, or a folder with a profile.yaml.")
    ] = "default",
    cores: Annotated[str, typer.Option(help="Cores to use at once: a number, or all.")] = "all",
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder of finished long jobs, shared with other checkouts. Also: ANATOMY_CACHE."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Say what would run, and why.")] = False,
    tier: Annotated[
        str,
        typer.Option(
            help="full computes everything. From an archive (docs/provenance.md): audit computes nothing, render makes "
            "tables, figures and report again, measure the measurements too."
        ),
    ] = "full",
    with_parent: Annotated[
        bool,
        typer.Option("--with-parent", help="Stop when the parent process is killed (Linux)."),
    ] = False,
) -> None:
    """Run a study: make what is missing or out of date, and nothing else."""
    from anatomy.commands.guard import die_with_parent
    from anatomy.commands.run import run_study
    from anatomy.commands.tiers import check_tier, run_tier

    if with_parent:
        die_with_parent()
    with _mistakes_told():
        check_tier(tier, targets=bool(targets), dry_run=dry_run, cache=cache is not None)
        if tier == "full":
            code = run_study(study, targets or [], profile=profile, cores=cores, cache=cache, dry_run=dry_run)
        else:
            code = run_tier(study, tier, _console(), profile=profile, cores=cores)
    raise typer.Exit(code)


@app.command()
def cost(
    study: Study = "embedded",
    profile: Annotated[
        str, typer.Option(help="As for run: default (this machine), slurm, or a folder with a profile.yaml.")
    ] = "default",
    as_json: Annotated[bool, typer.Option("--json", help="Print every job as JSON.")] = False,
) -> None:
    """Say what a run would do, why, and the hours, memory and disk it needs. Nothing is run."""
    from anatomy.commands.cost import cost_json, print_cost, study_cost

    with _mistakes_told():
        costs = study_cost(study, profile)
        if as_json:
            typer.echo(cost_json(study, costs))
        else:
            print_cost(study, costs, _console())


@app.command()
def summary(study: Study = "embedded") -> None:
    """Print published beside measured values, the verdicts, and the path of the report."""
    from anatomy.commands.show import print_summary

    with _mistakes_told():
        print_summary(study, _console())


@app.command()
def inspect(study: Study = "embedded") -> None:
    """Show a study as it is understood, defaults filled in."""
    from anatomy.commands.check import check_study
    from anatomy.commands.show import print_study

    with _mistakes_told():
        print_study(check_study(study), _console())


@app.command()
def audit(
    study: Study = "embedded",
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole report as JSON.")] = False,
) -> None:
    """Re-hash every result: was one touched, and would today's code, parameters and lock make it?"""
    from anatomy.commands.trust import audit_study
    from anatomy.provenance.audit import print_report, report_json

    with _mistakes_told():
        report = audit_study(study)
        if as_json:
            typer.echo(report_json(report))
        else:
            print_report(report, _console())
    raise typer.Exit(0 if report.ok else 1)


@app.command()
def explain(
    target: Annotated[
        str,
        typer.Argument(
            help="A file or model folder below results/, or one cell, row or claim of a CSV: FILE:ROW,COLUMN, FILE:ID, "
            "FILE:#N. Quote it where it holds spaces or brackets.",
            metavar="PATH[:ROW,COLUMN]",
        ),
    ],
    graph: Annotated[Path | None, typer.Option(help="Draw the chain into this file (SVG).", metavar="FILE")] = None,
) -> None:
    """Print where a number or a file comes from, job by job, down to the raw inputs."""
    from anatomy.commands.origin import explain_result

    with _mistakes_told():
        sound = explain_result(target, _console(), graph)
    raise typer.Exit(0 if sound else 1)


@app.command()
def compare(
    run_a: Annotated[str, typer.Argument(help="A study with results, or the path of its folder.", metavar="RUN_A")],
    run_b: Annotated[str, typer.Argument(help="The other one, perhaps of another checkout.", metavar="RUN_B")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole comparison as JSON.")] = False,
) -> None:
    """Which numbers differ between two runs, and which change of parameter, code or input explains it."""
    from anatomy.provenance.compare import compare as compare_runs
    from anatomy.provenance.compare_report import comparison_json, print_comparison

    with _mistakes_told():
        comparison = compare_runs(run_a, run_b)
        if as_json:
            typer.echo(comparison_json(comparison))
        else:
            print_comparison(comparison, _console())
    raise typer.Exit(0 if comparison.equal else 1)


@app.command()
def attest(study: Study = "embedded") -> None:
    """Write an in-toto statement about each phase, and sign it where an SSH key is set."""
    from anatomy.provenance.attest import attest as attest_study

    with _mistakes_told():
        for sentence in attest_study(study):
            typer.echo(sentence)


@app.command()
def archive(study: Study = "embedded") -> None:
    """Bring dvc.lock level with a study's results, and push them where a DVC remote is set."""
    from anatomy.provenance.archive import archive as archive_study

    with _mistakes_told():
        for sentence in archive_study(study):
            typer.echo(sentence)


@app.command()
def restore(study: Study = "embedded") -> None:
    """Fetch an archived study, with Snakemake's metadata, so that it counts as done."""
    from anatomy.commands.guard import sole_run
    from anatomy.provenance.restore import restore as restore_study

    with _mistakes_told(), sole_run():
        restore_study(study)
        typer.echo(f"restored results/{study} and Snakemake's metadata; `anatomy audit {study}` checks every byte")


@app.command()
def schema(
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail where one is out of date.")] = False,
    ledger: Annotated[
        str, typer.Option("--ledger", help="The study whose results dvc.yaml tracks.", metavar="STUDY")
    ] = "embedded",
) -> None:
    """Write what is generated from the code: config/schema.json and dvc.yaml."""
    from anatomy.provenance.digest import write_text_atomic
    from anatomy.provenance.ledger import ledger_path, render_ledger
    from anatomy.spec.read import load_study
    from anatomy.spec.read import schema as schema_text

    with _mistakes_told():
        generated = {Path("config/schema.json"): schema_text(), ledger_path(): render_ledger(load_study(ledger))}
        for path, wanted in generated.items():
            if path.exists() and path.read_text(encoding="utf-8") == wanted:
                typer.echo(f"{path} is up to date")
            elif check:
                typer.echo(f"error: {path} is not what the code says; write it anew: make schema", err=True)
                raise typer.Exit(1)
            else:
                write_text_atomic(path, wanted)
                typer.echo(f"wrote {path}")


if __name__ == "__main__":
    app()
