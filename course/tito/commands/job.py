"""`tito job`: run your own code on the autograder, or in a sandbox on this machine."""

import click

from course.curriculum import Checkpoint
from course.tito import show
from course.tito.failure import Failed, check_failed
from course.tito.names import Group, checkpoint_argument, json_option

sandbox_option = click.option("--sandbox", type=click.Choice(["process", "none"]),
                              help="Only without a hub: `none` runs your code without isolation, for a learner alone.")
detach_option = click.option("--detach", is_flag=True, help="Do not wait for the result.")
seed_option = click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Seed of all random numbers.")
id_argument = click.argument("id", metavar="[ID]", default="", required=False)


@click.group("job", cls=Group)
def group() -> None:
    """Run your exported code on the autograder: checkpoints, profiles, trainings.

    ID is the start of a job's id; without it the newest job is meant. Where there is no hub, jobs run on this machine.

    \b
    Example:
      tito job submit checkpoint 01
    """


@group.group(cls=Group)
def submit() -> None:
    """Submit a job and follow it: checkpoint, profile or train.

    \b
    Example:
      tito job submit profile activations.ReLU --input 1024x1024
    """


@submit.command()
@checkpoint_argument
@detach_option
@sandbox_option
@json_option
def checkpoint(checkpoint: Checkpoint, detach: bool, sandbox: str | None, as_json: bool) -> None:
    """Run a capability test against your exports.

    \b
    Example:
      tito job submit checkpoint 01
    """
    _submit("checkpoint", checkpoint.number, {}, sandbox, detach, as_json)


@submit.command()
@click.argument("name", metavar="NAME")
@click.option("--make", multiple=True, metavar="ARGUMENT", help="An argument with which the object is made; may be given several times.")
@click.option("--input", "inputs", multiple=True, metavar="SHAPE", help="Shape of an input, such as 32x784; one for each argument.")
@click.option("--backward", is_flag=True, help="Also compute the gradients.")
@seed_option
@detach_option
@sandbox_option
@json_option
def profile(name: str, make: tuple[str, ...], inputs: tuple[str, ...], backward: bool, seed: int, detach: bool, sandbox: str | None,
            as_json: bool) -> None:
    """Measure time, peak memory and operations of a function or model of your framework.

    NAME is `module.function`, `module.Class` or `module.Class.method` of tinytorch.core.

    \b
    Example:
      tito job submit profile layers.Linear --make 784 --make 10 --input 32x784
    """
    from course.tito.jobs import request
    _submit("profile", name, request.options(make, inputs, backward), sandbox, detach, as_json, seed)


@submit.command()
@click.argument("recipe", metavar="RECIPE")
@seed_option
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="CPU minutes at most; your class's quota without it.")
@detach_option
@sandbox_option
@json_option
def train(recipe: str, seed: int, minutes: float | None, detach: bool, sandbox: str | None, as_json: bool) -> None:
    """Train what a recipe describes: one of the course's, or a YAML file of your own.

    \b
    Example:
      tito job submit train digits
    """
    from course.tito.jobs import request
    target, files = request.recipe(recipe)
    limits = {"cpu_seconds": 60 * minutes, "wall_seconds": 120 * minutes} if minutes else {}
    _submit("train", target, files, sandbox, detach, as_json, seed, limits)


def _submit(kind: str, target: str, files: dict[str, bytes], sandbox: str | None, detach: bool, as_json: bool, seed: int = 0,
            limits: dict[str, float] | None = None) -> None:
    from course.tito.jobs import follow, request
    from course.tito.workspace import need
    jobs = follow.backend(sandbox)
    status = jobs.submit(request.make(kind, target, {**request.exports(need()), **files}, seed, limits))
    short = status["id"][:8]
    if not as_json:
        before = f": it was done before, here is its result (`tito job verify {short}` runs it again)" if status["state"] == "done" else ""
        click.echo(f"job {short} on {jobs.where}{before}", err=True)
        _quota(jobs)
    if detach:
        if as_json:
            show.as_json(status)
        else:
            click.echo(f"`tito job logs {short}` follows it, `tito job fetch {short}` takes its result")
        return
    _finish(jobs, status, as_json)


def _finish(jobs, status: dict, as_json: bool) -> None:
    """Follow to the end, show the result, exit 1 when it is not good."""
    from course.tito.jobs import follow
    status = follow.to_end(jobs, status, quiet=as_json)
    if as_json:
        show.as_json({**follow.record(status), "said": follow.said(status)})
    else:
        follow.print_result(status, followed=True)
        if status["verdict"] == "infra" and jobs.where == "this machine" and "--sandbox" not in status["sentence"]:
            click.echo("If this machine cannot isolate and the code is yours alone: --sandbox none", err=True)
    if not follow.succeeded(status) or status["same"] is False:
        raise check_failed()


def _quota(jobs) -> None:
    """One line of what is used and left, where there is a quota."""
    mine = jobs.mine()
    if mine["quota"]:
        quota, used = mine["quota"], mine["used"]
        click.echo(f"quota: {used['queued']} of {quota['queued']} jobs at a time, {used['jobs']} of {quota['jobs_per_day']} jobs and "
                   f"{used['cpu_seconds'] / 60:.1f} of {quota['cpu_seconds_per_day'] / 60:g} CPU minutes in 24 hours", err=True)


def _found(jobs, prefix: str) -> str:
    """The id that a prefix names among one's jobs; the newest without one."""
    if len(prefix) == 64 and prefix.isalnum() and jobs.where != "this machine":
        return prefix                           # whole: staff may name anybody's
    known = [job["id"] for job in jobs.mine()["jobs"]]
    if not known:
        raise Failed("you have no jobs yet: `tito job submit checkpoint 01`", exit_code=2)
    fitting = [id for id in known if id.startswith(prefix.lower())] if prefix else known[:1]
    if len(fitting) != 1:
        what = f"several jobs begin with {prefix}" if fitting else f"you have no job {prefix}"
        raise Failed(f"{what}; yours are: {', '.join(id[:8] for id in (fitting or known)[:8])}", exit_code=2)
    return fitting[0]


@group.command()
@id_argument
@json_option
def status(id: str, as_json: bool) -> None:
    """Your jobs and your quota, or one job with its place in the queue.

    \b
    Example:
      tito job status --json
    """
    from course.tito.jobs import follow
    jobs = follow.backend()
    if id:
        one = jobs.look(_found(jobs, id))
        if as_json:
            show.as_json(follow.record(one))
            return
        _rows([one])
        if one["state"] == "queued":
            click.echo(f"\n{follow.place(one['ahead'])}")
        elif one["state"] == "done":
            follow.print_result(one)
        return
    mine = jobs.mine()
    if as_json:
        show.as_json(mine)
        return
    _rows(mine["jobs"])
    _quota(jobs)


def _rows(jobs: list[dict]) -> None:
    import time
    rows = []
    for job in jobs:
        seconds = (job["finished"] or time.time()) - job["started"] if job["started"] else None
        state = job["verdict"] if job["state"] == "done" else f"queued, {job['ahead']} before" if job["state"] == "queued" else "running"
        rows.append((job["id"][:8], job["kind"], job["target"], state, "-" if seconds is None else f"{seconds:.1f}",
                     time.strftime("%Y-%m-%d %H:%M", time.localtime(job["created"]))))
    show.table(["id", "kind", "what", "state", "s", "submitted"], rows, right=["s"])


@group.command()
@id_argument
@click.option("--no-follow", is_flag=True, help="Only what there is now.")
def logs(id: str, no_follow: bool) -> None:
    """What a job writes, as it writes it.

    \b
    Example:
      tito job logs
    """
    from course.tito.jobs import follow
    jobs = follow.backend()
    follow.logs(jobs, _found(jobs, id), follow=not no_follow)


@group.command()
@id_argument
@click.option("--out", type=click.Path(file_okay=False), help="The folder (default: jobs/KIND-WHAT-ID in the workspace).")
def fetch(id: str, out: str | None) -> None:
    """Write a job's result, picture and record to a folder.

    \b
    Example:
      tito job fetch --out my-profile
    """
    from pathlib import Path

    from course.tito.jobs import follow
    from course.tito.workspace import need
    jobs, workspace = follow.backend(), need()
    one = jobs.look(_found(jobs, id))
    if one["state"] != "done":
        raise Failed(f"job {one['id'][:8]} is not done yet: it is {one['state']}. `tito job logs {one['id'][:8]}` follows it")
    folder = Path(out) if out else workspace.root / "jobs" / f"{one['kind']}-{one['target']}-{one['id'][:8]}"
    for path in follow.write(one, folder):
        click.echo(f"wrote {workspace.short(path)}")


@group.command()
@id_argument
def cancel(id: str) -> None:
    """End a job that waits or runs.

    \b
    Example:
      tito job cancel 1a2b3c4d
    """
    from course.tito.jobs import follow
    jobs = follow.backend()
    one = jobs.look(_found(jobs, id))
    if one["state"] == "done":
        raise Failed(f"job {one['id'][:8]} is done already ({one['verdict']})")
    jobs.cancel(one["id"])
    one = jobs.look(one["id"], wait=10)
    click.echo(f"job {one['id'][:8]}: {one['verdict'] or one['state']}")


@group.command()
@id_argument
@json_option
def verify(id: str, as_json: bool) -> None:
    """Run a finished job again and say whether its result is the same.

    \b
    Example:
      tito job verify 1a2b3c4d
    """
    from course.tito.jobs import follow
    jobs = follow.backend()
    _finish(jobs, jobs.verify(_found(jobs, id)), as_json)
