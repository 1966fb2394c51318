"""`make bench`: run every benchmark, print what was measured and whether the target was met; `--json FILE` keeps it."""

import argparse
import importlib
import json
import os
import platform
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    here = Path(__file__).parent
    names = sorted(file.stem.removeprefix("bench_") for file in here.glob("bench_*.py"))
    parser.add_argument("names", nargs="*", default=names, help=f"some of: {', '.join(names)}")
    parser.add_argument("--json", type=Path)
    args, own = parser.parse_known_args()                # what only one benchmark knows, e.g. `grade --otter PYTHON`
    if own and len(args.names) != 1:
        parser.error(f"which benchmark is {own[0]} for? Name it alone")
    results = {"machine": {"cpus": os.cpu_count(), "processor": platform.processor() or platform.machine(), "load": os.getloadavg()}}
    print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f} before the start")
    for name in args.names:
        print(f"\n{name}: running", flush=True)
        module = importlib.import_module(f"tests.benchmarks.bench_{name}")
        results[name] = module.main(own) if own else module.main()
        for key, value in results[name].items():
            print(f"  {key:<44} {value}")
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
