"""`fedcredit schema`: draft a schema from a table, check a table against a schema."""

import json
import sys
from pathlib import Path

import click

from federated.schema_draft import draft_schema
from federated.schema_toml import load_schema
from federated.table import Problems, how_counted, scan_table
from privacy.errors import MalformedError, UsageError

TABLE = click.Path(path_type=Path)


@click.group(epilog="Example: fedcredit schema check schema.toml loans.csv")
def schema() -> None:
    """Draft a schema from a table; check a table against a schema."""


@schema.command(epilog="Example: fedcredit schema init loans.csv --out schema.toml")
@click.argument("table", type=TABLE)
@click.option("--out", type=TABLE, default=Path("schema.toml"), show_default=True, help="File to write.")
def init(table: Path, out: Path) -> None:
    """Draft a schema from the columns of TABLE (CSV, CSV.gz, .parquet, or the settings of a query, .sql.toml).

    The draft holds column names and types and no figure of the table; bounds, codes and meanings are blanks that you
    fill in. It does not load before that. An existing file is never overwritten.
    """
    if out.exists():
        raise UsageError(f"{out} exists and is left as it is; name another file with --out")
    text = draft_schema(table)
    try:
        with out.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        raise UsageError(f"cannot write {out}: {error.strerror}; name another file with --out") from None
    click.echo(
        f"Draft written to {out}. Fill in what says FILL IN, then: fedcredit schema check {out} {table}", err=True
    )


@schema.command(epilog="Example: fedcredit schema check schema.toml loans.csv --json")
@click.argument("schema_file", metavar="SCHEMA", type=TABLE)
@click.argument("table", type=TABLE)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option(
    "--limit", type=click.IntRange(1, 1_000_000), default=20, show_default=True, help="Row numbers per problem."
)
def check(schema_file: Path, table: Path, as_json: bool, limit: int) -> None:
    """Say what in TABLE does not fit SCHEMA, by row number and never by value.

    TABLE is CSV, CSV.gz, .parquet, or the settings of a query (.sql.toml). Rows count from 1, the header not counted.
    Exit code 0 if all fits, 4 if not.
    """
    agreed = load_schema(schema_file)
    problems = Problems(limit=limit)
    seen = 0

    def advance(rows: int) -> None:
        nonlocal seen
        seen += rows
        if sys.stderr.isatty():
            click.echo(f"\r{seen:,} rows read", nl=False, err=True)

    whole: MalformedError | None = None
    try:
        scan_table(table, agreed, problems, advance=advance)
    except MalformedError as error:  # of the file as a whole; problems of cells found before are told as well
        whole = error
    if sys.stderr.isatty() and seen:
        click.echo("", err=True)
    found = problems.found()
    if as_json:
        listed: list[dict[str, object]] = [
            {"column": column, "problem": kind, "rows": rows, "count": count} for column, kind, rows, count in found
        ]
        if whole is not None:
            listed.append({"column": None, "problem": str(whole), "rows": [], "count": None})
        answer = {"fits": not listed, "schema": agreed.name, "digest": agreed.digest, "rows": seen, "problems": listed}
        click.echo(json.dumps(answer, indent=2))
    else:
        _print(found)
    if whole is not None:
        raise whole
    if found:
        raise MalformedError(
            f"{table.name} does not fit schema {agreed.name!r}: {len(found)} kinds of problem in {seen:,} rows,"
            f" listed on standard output.{how_counted(table)} The data holder mends the table, or all parties agree on"
            " another schema"
        )
    click.echo(f"{table.name} fits schema {agreed.name!r}: {seen:,} rows", err=True)


def _print(found: list[tuple[str, str, list[int], int]]) -> None:
    last = None
    for column, kind, rows, count in found:
        if column != last:
            click.echo(column)
            last = column
        more = f" and {count - len(rows):,} more" if count > len(rows) else ""
        click.echo(f"  {kind}: row{'s' if count > 1 else ''} {', '.join(str(row) for row in rows)}{more}")
