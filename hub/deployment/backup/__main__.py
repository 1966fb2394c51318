"""The commands, as an admin and the playbooks give them."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from . import __doc__ as about
from .archive import DUMP
from .create import create
from .folder import backups, find
from .forms import same, schemas
from .postgresql import check
from .restore import refuse_another_kind, restore
from .settings import Problem, Settings
from .verify import verify


def show(settings: Settings) -> None:
    for file in backups(settings):
        record = file.with_name(f"{file.name}.json")
        said = json.loads(record.read_text()) if record.exists() else {}
        print(f"{file.name}  {file.stat().st_size / 2**20:9.1f} MB  {len(said.get('volumes', {})):4} homes  "
              f"version {said.get('version', '?')}  {said.get('reason', '')}")


def told(manifest: dict[str, Any]) -> str:
    return (f"version {manifest['version']}, made {manifest['made']}, {len(manifest['databases'])} databases, "
            f"{len(manifest['volumes'])} homes")


def main() -> None:
    parser = argparse.ArgumentParser(prog="tinytorch-backup", description=about.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    creating = commands.add_parser("create")
    creating.add_argument("--reason", default="by hand")
    creating.add_argument("--version", default="", help="of the software whose data it is, where another one is about to take over")
    commands.add_parser("list")
    commands.add_parser("check", help="whether the databases can be reached and backed up from here")
    commands.add_parser("schemas").add_argument("--same-as", type=Path, help="exit 1 where a database's form differs from that file's")
    verifying = commands.add_parser("verify")
    verifying.add_argument("file")
    verifying.add_argument("--fits", action="store_true", help="also: whether this host's site, as it is set up now, can take it")
    restoring = commands.add_parser("restore")
    restoring.add_argument("file")
    restoring.add_argument("--replace", action="store_true")
    args = parser.parse_args()
    os.umask(0o077)
    try:
        settings = Settings.load()
        match args.command:
            case "create":
                file = create(settings, args.reason, args.version)
                said = json.loads(file.with_name(f"{file.name}.json").read_text())
                for line in said["left_out"]:
                    print(f"left out: {line}", file=sys.stderr)
                print(f"{file} ({file.stat().st_size / 2**20:.1f} MB, {len(said['databases'])} databases, {len(said['volumes'])} homes), "
                      "read again and whole")
            case "list":
                show(settings)
            case "schemas":
                print(json.dumps(schemas(settings) if args.same_as is None else same(settings, args.same_as)))
            case "check":
                print(check(settings))
            case "verify":
                said = verify(find(settings, args.file))
                if args.fits:
                    refuse_another_kind(settings, DUMP in said["parts"])
                print(f"whole: {told(said)}")
            case "restore":
                said = restore(settings, find(settings, args.file), args.replace)
                print(f"restored: {told(said)}")
    except Problem as problem:
        sys.exit(f"tinytorch-backup: {problem}")


if __name__ == "__main__":
    main()
