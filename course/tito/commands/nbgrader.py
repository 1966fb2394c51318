"""`tito nbgrader`: an assignment's whole life from the terminal of a class, on nbgrader's own gradebook and exchange."""

import os
from collections import Counter

import click

from course.curriculum import Module
from course.tito import show
from course.tito.failure import Failed, check_failed
from course.tito.names import Group, ModuleName, json_option, module_argument


@click.group("nbgrader", cls=Group)
def group() -> None:
    """Instructors: generate, release, collect, autograde, feedback.

    Runs in the terminal of a class's formgrader, with that class's configuration.

    \b
    Example:
      tito nbgrader status
    """


def _enter():
    from course.tito.classroom import enter
    with show.working("opening the class"):
        return enter()


def _say(step: str, text: str) -> None:
    click.echo(f"{step:<11}{text}")


@group.command("setup-instructor")
def setup_instructor() -> None:
    """Make the folders and the gradebook of this class's course, and say whether the exchange answers.

    \b
    Example:
      tito nbgrader setup-instructor
    """
    room = _enter()
    for folder in ("source", "release", "submitted", "autograded", "feedback"):
        (room.root / folder).mkdir(exist_ok=True)
    _say("course", f"{room.course} in {room.root}")
    _say("gradebook", f"{len(room.api.get_students())} students, {len(room.api.get_source_assignments())} assignments")
    _say("exchange", room.trouble or "answers")
    if room.trouble:
        raise check_failed()
    click.echo("next: tito nbgrader generate 01")


@group.command()
@click.argument("module", metavar="[MODULE]", type=ModuleName(), required=False)
@click.option("--all", "everything", is_flag=True, help="Every graded module that this course has.")
@click.option("--refresh", is_flag=True, help="Replace the course's source where it differs from the built one.")
def generate(module: Module | None, everything: bool, refresh: bool) -> None:
    """Make the students' version of an assignment, without solutions and hidden tests.

    \b
    Example:
      tito nbgrader generate 02
      tito nbgrader generate --all
    """
    from course.curriculum import modules
    if (module is None) == (not everything):
        raise click.UsageError("give one module, or --all")
    from course.tito import assignments
    room, failed = _enter(), 0
    for each in ([module] if module else [m for m in modules() if m.ready and m.graded]):
        try:
            _say("source", f"{each.slug} {assignments.put_source(room, each, refresh)}")
            with show.working(f"generating {each.slug}"):
                worth = assignments.generate(room, each)
            _say("generate", worth)
        except Failed as error:
            error.show()
            failed += 1
    if failed:
        raise check_failed()


@group.command()
@module_argument
@click.option("--replace", is_flag=True, help="Replace the files of an assignment that is released already; submissions stay.")
def release(module: Module, replace: bool) -> None:
    """Let the students of this class fetch an assignment.

    \b
    Example:
      tito nbgrader release 02
    """
    from course.tito import assignments
    room = _enter()
    with show.working(f"releasing {module.slug}"):
        outcome = assignments.release(room, module, replace)
    _say("release", f"{module.slug}: {outcome}")


@group.command()
@json_option
def status(as_json: bool) -> None:
    """The class's assignments: released, collected, graded, waiting for hand grading.

    \b
    Example:
      tito nbgrader status --json
    """
    from course.tito import assignments
    room = _enter()
    rows = assignments.overview(room)
    if as_json:
        show.as_json(rows)
    elif rows:
        show.table(["assignment", "state", "due", "points", "collected", "graded", "by hand", "mean"],
                   [(r["assignment"], r["state"], r["due"] or "-", show.number(r["points"]), r["collected"], r["graded"], r["by_hand"],
                     show.number(r["mean"])) for r in rows], right=["points", "collected", "graded", "by hand", "mean"])
    else:
        click.echo(f"{room.course} has no assignments yet: tito nbgrader generate 01")
    if room.trouble:
        raise Failed(f"the exchange cannot be used: {room.trouble}")


@group.command()
@module_argument
@json_option
def collect(module: Module, as_json: bool) -> None:
    """Fetch what the students submitted; a newer submission replaces an older one.

    \b
    Example:
      tito nbgrader collect 02
    """
    from course.tito import assignments
    room = _enter()
    with show.working(f"collecting {module.slug}", quiet=as_json):
        rows = assignments.collect(room, module)
    if as_json:
        show.as_json(rows)
    elif rows:
        show.table(["student", "submitted", "state"], [(r["student"], r["submitted"], r["state"]) for r in rows])
        click.echo(f"\n{len(rows)} submissions of {module.slug}; next: tito nbgrader autograde {module.number}")
    else:
        click.echo(f"nobody has submitted {module.slug} yet")


@group.command()
@module_argument
@click.option("--student", metavar="NAME", help="Only this student's submission, even if it is graded already.")
@click.option("--again", is_flag=True, help="Also what is graded already.")
@click.option("--regrade", metavar="NAME", help="Grade this student's submission again and keep the reason.")
@click.option("--reason", metavar="TEXT", help="Why: with --regrade, shown in this table and kept in the course's folder.")
@json_option
def autograde(module: Module, student: str | None, again: bool, regrade: str | None, reason: str | None, as_json: bool) -> None:
    """Run the tests, visible and hidden, on every collected submission that is not graded yet, several at a time.

    Interrupted or killed, it goes on where it was when it is called again.

    \b
    Example:
      tito grade autograde 02
      tito grade autograde 02 --regrade alice --reason "the test of reshape was wrong"
    """
    from course.tito import assignments
    if bool(regrade) != bool(reason) or (regrade and (student or again)):
        raise click.UsageError('--regrade NAME goes with --reason "TEXT", and with nothing else')
    room = _enter()
    waiting = assignments.to_grade(room, module, regrade or student, again)
    failed: dict[str, str] = {}
    if regrade or student:
        for name in show.counted(waiting, f"autograding {module.slug}", quiet=as_json):
            failed |= assignments.autograde(room, module, name, reason=reason or "")
    elif assignments.in_sandbox(room):
        failed = assignments.autograde(room, module, "*", again)
    else:
        for name in show.counted(waiting, f"autograding {module.slug}", quiet=as_json):
            failed |= assignments.autograde(room, module, name)
    rows = assignments.grades(room, module, failed)
    if as_json:
        show.as_json(rows)
    else:
        show.table(["student", "points", "run", "state", "submitted"],
                   [(r["student"], "-" if r["of"] is None else f"{r['points']:g}/{r['of']:g}", r["run"] or "-", r["state"], r["submitted"])
                    for r in rows], right=["points"])
        _print_reasons(rows)
        runs = Counter(r["run"] for r in rows if r["run"])
        if runs:
            click.echo("\nruns: " + ", ".join(f"{count} {run}" for run, count in runs.most_common()))
        click.echo(f"\n{len(waiting) - len(failed)} graded now, {sum(r['state'] == 'by hand' for r in rows)} wait for grading by hand"
                   + (f", {len(failed)} failed" if failed else ""))
    if failed:
        raise check_failed()


def _print_reasons(rows: list[dict]) -> None:
    for row in rows:
        if row["reason"] or row["regraded"]:
            click.echo(f"\n{row['student']} ({row['look']})")
            regraded = [f"graded again: {row['regraded']}"] if row["regraded"] else []
            click.echo("\n".join(f"  {line}" for line in [*row["reason"].splitlines(), *regraded]))


@group.command()
@module_argument
@json_option
def formgrade(module: Module, as_json: bool) -> None:
    """Who waits for grading by hand, and where to do it.

    \b
    Example:
      tito nbgrader formgrade 02
    """
    from course.tito import assignments
    room = _enter()
    rows = assignments.grades(room, module, {})
    waiting = [r for r in rows if r["state"] == "by hand"]
    if as_json:
        show.as_json(waiting)
        return
    if waiting:
        show.table(["student", "points so far"], [(r["student"], f"{r['points']:g}/{r['of']:g}") for r in waiting], right=["points so far"])
    prefix = os.environ.get("JUPYTERHUB_SERVICE_PREFIX")
    address = f"{prefix.rstrip('/')}/formgrader/gradebook/{module.slug}" if prefix else "jupyter lab, then Nbgrader > Formgrader"
    click.echo(f"{len(waiting)} of {len(rows)} submissions wait for grading by hand: {address}")


@group.command()
@module_argument
def feedback(module: Module) -> None:
    """Make the feedback of every graded submission and give it to its student.

    \b
    Example:
      tito nbgrader feedback 02
    """
    from course.tito import assignments
    room = _enter()
    with show.working(f"making the feedback of {module.slug}"):
        students = assignments.feedback(room, module)
    _say("feedback", f"{module.slug}: {len(students)} students can fetch theirs ({', '.join(students)})")
    unfinished = [r["student"] for r in assignments.grades(room, module, {}) if r["state"] == "by hand"]
    if unfinished:
        _say("note", f"not graded by hand yet, so with the points so far: {', '.join(unfinished)}")
