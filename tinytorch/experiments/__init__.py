"""Experiments: a YAML file says what is trained, a run leaves a log, and the same file and seed give the same numbers.

    python -m tinytorch.experiments run digits.yml      train, and write runs/NAME-TIME/{config.yml,log.jsonl,best.tt}
    python -m tinytorch.experiments run digits.yml --set optimizer.AdamW.lr=3e-3 --seed 1
    python -m tinytorch.experiments check digits.yml    only read it
    python -m tinytorch.experiments show runs/*         a table of what came out

`components` says what the words of a file mean, `configuration` reads it, `running` trains. A library that a file names under
`uses: [tinytorch.something]` adds words of its own with `register`.
"""

from tinytorch.experiments.components import Component, ConfigError, register
from tinytorch.experiments.configuration import parse, read
from tinytorch.experiments.running import Experiment, entries, run, summary

__all__ = ["Component", "ConfigError", "Experiment", "entries", "parse", "read", "register", "run", "summary"]
