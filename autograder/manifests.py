"""`python -m autograder kubernetes`: the manifests of a class's sandboxes on stdout, to be looked at, kept in git or applied.

    python -m autograder kubernetes --class ml101 --image registry.example.org/autograder@sha256:... [--kind train] [--jobs FILE]

With --jobs (job ids, one a line) the Indexed Job of that batch and its ConfigMap; without, the pod of one sandbox. Before either
the class's namespace, unless --no-namespace. What is wrong with the options is told in one line; exit code 2.
"""

import json
import os
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, get_args

import click
import yaml
from pydantic import ValidationError

from autograder import runner
from autograder.jobs import Kind, Limits
from autograder.quotas import Quota
from autograder.sandbox import seccomp
from autograder.sandbox.kubernetes import namespaces, pods
from autograder.service.store import MAX_ATTEMPTS

STATE = Path(os.environ.get("TINYTORCH_STATE", ".state"))


class Wrong(click.ClickException):
    """One line for the user: which option, what is wrong, what to write."""

    exit_code = 2


class _Yaml(yaml.SafeDumper):
    """Programs readable as they are, nothing by reference."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Yaml.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None))


def render(documents: Iterable[pods.Document]) -> str:
    return yaml.dump_all(documents, Dumper=_Yaml, sort_keys=False, width=140)


def option(field: str) -> str:
    return f"--{field.removesuffix('_id').replace('_', '-')}"


def of_limits(command: Callable[..., None]) -> Callable[..., None]:
    """An option for each limit of a job."""
    for field, of_field in reversed(Limits.model_fields.items()):
        command = click.option(option(field), type=of_field.annotation, help="of one job (autograder.jobs.Limits)")(command)
    return command


@click.command()
@click.option("--class", "class_id", required=True, help="a class of classes.yml")
@click.option("--image", required=True, help="the autograder's image, by digest")
@click.option("--kind", type=click.Choice(get_args(Kind)), default="grade", show_default=True)
@click.option("--jobs", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="a batch: a file with one job id a line")
@click.option("--parallelism", type=click.IntRange(1), help="pods of a batch at the same time; default: the class's `parallel`")
@click.option("--quotas", type=click.Path(path_type=Path), default=STATE / "autograder" / "quotas.json", show_default=True,
              help="what classes may ask for: written by `make up`, or by `python -m hub.config quotas classes.yml`")
@click.option("--name", help="of the pod or the Job; default: KIND-CLASS")
@click.option("--namespace", help="default: sandboxes-CLASS")
@click.option("--no-namespace", is_flag=True, help="leave out the namespace with its policy, quota and rights")
@click.option("--supervisor", default="tinytorch/autograder", show_default=True, help="NAMESPACE/NAME of the autograder's service account")
@click.option("--python", default="python3", show_default=True, help="the image's Python, with NumPy")
@click.option("--seccomp", help="a filter below the kubelet's folder of profiles on every node; default: the container runtime's")
@click.option("--runtime-class", help="such as gvisor")
@click.option("--data-claim", help="a volume claim with the data sets, for --kind train")
@click.option("--user-namespace/--no-user-namespace", default=True, show_default=True, help="off for nodes before Linux 6.3")
@of_limits
def kubernetes(class_id: str, kind: Kind, jobs: Path | None, parallelism: int | None, quotas: Path, name: str | None, namespace: str | None,
               no_namespace: bool, supervisor: str, **options: Any) -> None:
    """Print the Kubernetes manifests of a class's sandboxes. They are rendered and checked; no cluster is asked."""
    limits = {field: options.pop(field) for field in Limits.model_fields}
    quota = quota_of(class_id, quotas)
    try:
        plan = pods.Plan(
            class_id=class_id, kind=kind, name=name or f"{kind}-{class_id}", namespace=namespace or f"sandboxes-{class_id}",
            limits=limits_of(kind, quota, {field: value for field, value in limits.items() if value is not None}),
            folders=(runner.INNER_FOLDER, runner.INNER_EDITION), data_folder=runner.INNER_DATA, **options)
        at_once = parallelism or quota.parallel
        documents = [] if no_namespace else namespaces.documents(plan, quota, at_once, account_of(supervisor))
        if jobs:
            ids = ids_of(jobs)
            documents += [pods.shards(plan, ids), pods.job(plan, ids, at_once, MAX_ATTEMPTS)]
        else:
            documents.append(pods.pod(plan))
    except ValidationError as error:
        raise Wrong(in_one_line(error)) from None
    except ValueError as error:
        raise Wrong(str(error)) from None
    click.echo(render(documents), nl=False)


def in_one_line(error: ValidationError) -> str:
    """The first thing that is wrong, under the name of its option."""
    first = error.errors()[0]
    field = next((part for part in first["loc"] if isinstance(part, str)), "")
    said = first["msg"].removeprefix("Value error, ") + ("" if first["type"] == "value_error" else f", not {first['input']!r}")
    return f"{option(field)}: {said}" if field else said


def quota_of(class_id: str, file: Path) -> Quota:
    """The class's own quota: a class that is written wrongly must not get the default."""
    try:
        known = json.loads(file.read_text())
        if class_id not in known:
            raise Wrong(f"--class: there is no class {class_id} in {file}, only {', '.join(sorted(known))}")
        return Quota.model_validate(known[class_id])
    except ValidationError as error:
        raise Wrong(f"--quotas: {class_id} in {file}: {in_one_line(error).removeprefix('--')}") from None
    except (OSError, ValueError, TypeError) as error:
        raise Wrong(f"--quotas: {file} cannot be read ({error}): start the site once (make up), or write it with "
                    "python -m hub.config quotas classes.yml") from None


def account_of(supervisor: str) -> tuple[str, str]:
    namespace, _, name = supervisor.partition("/")
    if not (pods.DNS_LABEL.fullmatch(namespace) and pods.DNS_LABEL.fullmatch(name)):
        raise ValueError(f"--supervisor: {supervisor!r} is not NAMESPACE/NAME of a service account, such as tinytorch/autograder")
    return namespace, name


def ids_of(file: Path) -> list[str]:
    """Job ids, one a line. Raises ValueError for the first line that is none."""
    for number, line in enumerate(lines := file.read_text().split("\n"), 1):
        if not re.fullmatch(r"[0-9a-f]{64}", line) and (line or number < len(lines)):
            raise ValueError(f"--jobs: {file}, line {number}: {line[:80]!r} is no job id (64 hexadecimal digits)")
    return [line for line in lines if line]


def limits_of(kind: Kind, quota: Quota, asked: dict[str, float]) -> Limits:
    """Of grading what is asked for, of students' jobs no more than the class may. Raises ValueError."""
    largest = Limits() if kind == "grade" else quota.largest
    limits = Limits.model_validate({**dict(largest), **asked})
    for field in asked if kind != "grade" else ():
        if getattr(limits, field) > getattr(largest, field):
            raise ValueError(f"{option(field)}: {getattr(limits, field)} is more than a job of the class may have "
                             f"({getattr(largest, field)}): raise `autograder` of the class in classes.yml")
    return limits


@click.command("seccomp")
def profile() -> None:
    """Print the sandbox's system call filter, as container engines and kubelets read it."""
    if not (text := seccomp.profile()):
        sys.exit("there is no filter for this kind of machine")
    click.echo(text)
