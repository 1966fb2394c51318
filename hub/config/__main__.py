"""classes.yml at the command line.

    python -m hub.config check [FILE]      is this file usable? every problem at once, each with its line and its fix
    python -m hub.config schema [FILE]     write the JSON schema, for editors
    python -m hub.config quotas [FILE]     print what each class may ask of the autograder, as the autograder reads it
"""

import argparse
import json
import sys
from pathlib import Path

from hub import paths
from hub.config import documents
from hub.config.problems import SiteError, shown_path
from hub.config.site import Site

SCHEMA = paths.REPO / "hub" / "schema" / "classes.schema.json"


def _print_table(site: Site) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("class", "title", "weeks", "starts", "instructors", "graders", "students")
    for c in site.classes:
        starts, graders = str(c.start or "-"), ", ".join(c.graders) or "-"
        table.add_row(c.id, c.title, str(c.plan), starts, ", ".join(c.instructors), graders, str(len(c.students)))
    Console(markup=False).print(table)


def main(arguments: list[str] | None = None) -> int:
    """`check` prints OK and a table, or every problem (exit 1); `schema` writes the JSON schema; `quotas` prints them."""
    parser = argparse.ArgumentParser("python -m hub.config", description="Check classes.yml, or write its JSON schema.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, purpose in (("check", "is this file usable?"), ("quotas", "print what each class may ask of the autograder")):
        command = commands.add_parser(name, help=purpose)
        command.add_argument("file", nargs="?", type=Path, default=paths.CLASSES_YML, help="default: classes.yml")
    schema = commands.add_parser("schema", help="write the JSON schema")
    schema.add_argument("file", nargs="?", type=Path, default=SCHEMA, help="default: hub/schema/classes.schema.json")
    chosen = parser.parse_args(arguments)
    if chosen.command == "schema":
        chosen.file.write_text(json.dumps(Site.schema(), indent=2) + "\n")
        return 0
    try:
        site = Site.load(chosen.file)
    except SiteError as error:
        print(error, file=sys.stderr)
        return 1
    if chosen.command == "quotas":
        print(json.dumps(documents.quotas(site), indent=1))
        return 0
    print(f"OK: {shown_path(chosen.file)}: {len(site.classes)} classes, {len(site.people())} people, {site.url}")
    _print_table(site)
    return 0


if __name__ == "__main__":
    sys.exit(main())
