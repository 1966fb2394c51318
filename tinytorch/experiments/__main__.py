"""The command line of experiments: run, check, show."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinytorch.experiments.components import ConfigError
from tinytorch.experiments.configuration import nodes, read
from tinytorch.experiments.running import draw, run, summary


def main(arguments: Sequence[str] | None = None) -> int:
    """0: done; 1: it could not be done, or a goal was missed; 2: wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m tinytorch.experiments", description="Run experiments that YAML files describe.")
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="train what a file describes")
    running.add_argument("file", help="a YAML file; with --resume, the folder of an interrupted run")
    running.add_argument("--out", help="folder of the run (default: runs/NAME-TIME)")
    running.add_argument("--seed", type=int, help="instead of the file's")
    running.add_argument("--epochs", type=int, help="instead of the file's")
    running.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                         help="another value for one key, such as optimizer.Adam.lr=3e-3; may be given several times")
    running.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    running.add_argument("--quiet", action="store_true", help="print the result only")
    checking = commands.add_parser("check", help="read files and say what is wrong with them")
    checking.add_argument("files", nargs="+")
    showing = commands.add_parser("show", help="a table of runs")
    showing.add_argument("folders", nargs="+")
    showing.add_argument("--curves", action="store_true", help="draw each run's learning curves into its folder, as curves.svg")
    options = parser.parse_args(arguments)
    try:
        if options.command == "run":
            return _run_command(options)
        if options.command == "check":
            for file in options.files:
                read(file)
                print(f"{file}: in order")
        else:
            for folder in options.folders:
                print(summary(Path(folder)))
                if options.curves:
                    print(f"  {draw(Path(folder))}")
    except (ConfigError, ImportError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _run_command(options: argparse.Namespace) -> int:
    try:
        changes = dict(map(_change, options.set))
        results = run(options.file, out=options.out, seed=options.seed, epochs=options.epochs, changes=changes,
                      resume=options.resume, quiet=options.quiet or None)
    except KeyboardInterrupt as stopped:
        print("\n".join(["interrupted", *getattr(stopped, "__notes__", [])]), file=sys.stderr)
        return 1
    except (FloatingPointError, ImportError, ValueError) as error:
        print("\n".join([str(error), *getattr(error, "__notes__", [])]), file=sys.stderr)
        return 1
    print("test  " + "  ".join(f"{name} {value:.4f}" for name, value in results.items()))
    config = read(Path(options.file) / "config.yml" if options.resume else options.file)
    missed = {name: least for name, least in config.goal.items() if not results.get(name, float("nan")) >= least}
    for name, least in missed.items():
        print(f"the goal of {name} {least} was missed", file=sys.stderr)
    return 1 if missed else 0


def _change(text: str) -> tuple[str, Any]:
    """`training.epochs=5` as key and value."""
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise ConfigError(f"--set {text}: write it as KEY=VALUE, such as training.epochs=5")
    return key, nodes(value, f"--set {text}")[1]


if __name__ == "__main__":
    sys.exit(main())
