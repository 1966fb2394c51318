"""`tito module`: from an empty workspace to a completed module."""

import click

from course.curriculum import Module
from course.tito import progress, show
from course.tito.failure import check_failed
from course.tito.names import Group, json_option, module_argument
from course.tito.workspace import find, need


@click.group("module", cls=Group)
def group() -> None:
    """Start, test, export and complete the modules.

    MODULE is `02_tensor`, `02`, `2` or `tensor`.

    \b
    Example:
      tito module start 02
    """


@group.command()
@module_argument
@click.option("--reference", is_flag=True, help="Take the reference in place of your export, where your class has opened it.")
def start(module: Module, reference: bool) -> None:
    """Put a module's notebook into the workspace; what is there already stays.

    \b
    Example:
      tito module start 02
    """
    from course.tito.reference import offered
    from course.tito.start import lab_address, say_what_is_missing
    from course.tito.start import start as put_there
    workspace = find()
    if reference:
        take_reference(module)
        return
    done = put_there(workspace, module)
    for path in done.added:
        click.echo(f"added  {workspace.short(path)}")
    for path in done.kept:
        click.echo(f"kept   {workspace.short(path)}   (it was there; nothing was overwritten)")
    address = lab_address(done.notebook)
    click.echo(f"Open {address}" if address else f"Open it:  jupyter lab {done.notebook}")
    say_what_is_missing(workspace, module)
    if offered(module):
        click.echo(f"The reference is open: `tito module start {module.number} --reference` takes it in place of your export")


def take_reference(module: Module) -> None:
    """Say what is imported now, and where the student's own work is."""
    from course.tito import reference
    workspace = need()
    taken = reference.take(workspace, module)
    click.echo(f"tinytorch.core.{module.export} is now the reference ({workspace.short(taken.path)})")
    if taken.own:
        click.echo(f"Your own is kept as {workspace.short(taken.own)}; `tito module export {module.number}` brings back your notebook's")


@group.command()
@json_option
def status(as_json: bool) -> None:
    """Where each module stands, with the points of its last test run.

    \b
    Example:
      tito module status --json
    """
    from course.tito import states
    workspace = find()
    state = progress.read(workspace.state)
    rows = []
    for module in states.shown_modules():
        tested = state["modules"].get(module.number, {}).get("tested") or {}
        rows.append({"module": module.slug, "title": module.title, "state": states.module_state(workspace, module, state),
                     "points": tested.get("points"), "of": tested.get("of"), "tested": tested.get("when")})
    if as_json:
        show.as_json(rows)
        return
    show.table(["module", "title", "state", "points"],
               [(r["module"], r["title"], r["state"], "-" if r["of"] is None else f"{r['points']:g}/{r['of']:g}") for r in rows],
               right=["points"])
    upcoming = states.next_module(state)
    click.echo()
    click.echo(f"next: {_next_step(workspace, upcoming)}" if upcoming else "every module of this course so far is complete")


def _next_step(workspace, module: Module) -> str:
    if workspace.notebook(module).is_file():
        return f"tito module complete {module.number}   ({module.title})"
    return f"tito module start {module.number}   ({module.title})"


@group.command()
@module_argument
@json_option
def test(module: Module, as_json: bool) -> None:
    """Run the tests in a module's notebook.

    \b
    Example:
      tito module test 02
    """
    run_tests(module, as_json)


def run_tests(module: Module, as_json: bool = False) -> None:
    """Also behind `tito test`; exits 1 if a test fails."""
    from dataclasses import asdict

    from course.tito import tests_of
    from course.tito.start import say_what_is_missing
    workspace = need()
    results = tests_of.run(workspace, module, quiet=as_json)
    tests_of.record(workspace, module, results)
    if as_json:
        show.as_json([asdict(r) for r in results])
    else:
        tests_of.print_table(results)
        say_what_is_missing(workspace, module)
    if not all(r.passed for r in results):
        raise check_failed()


@group.command()
@module_argument
def export(module: Module) -> None:
    """Put your code of a module into your framework, `tinytorch/core`.

    \b
    Example:
      tito module export 02
    """
    from course.tito import stubs
    from course.tito.exports import export as put_into_framework
    workspace = need()
    done = put_into_framework(workspace, module)
    with progress.change(workspace.state) as state:
        state["modules"].setdefault(module.number, {})["exported"] = progress.now()
    click.echo(f"{'wrote' if done.changed else 'no change in'} {workspace.short(done.path)}")
    click.echo(f"tinytorch.core.{module.export} is imported from {done.imported}")
    unwritten = stubs.functions(done.path.read_text(encoding="utf-8"))
    if unwritten:
        click.echo(f"{len(unwritten)} {'function is' if len(unwritten) == 1 else 'functions are'} not written yet: {', '.join(unwritten)}")
    if done.imported.resolve() != done.path.resolve():
        click.echo(f"tito: that is not the file just written ({done.path})", err=True)
        raise check_failed()


@group.command()
@module_argument
@json_option
def validate(module: Module, as_json: bool) -> None:
    """Check that a notebook is whole and written to the end, before it is handed in.

    \b
    Example:
      tito module validate 02
    """
    from course.tito.validate import validate as examine
    workspace = need()
    findings = examine(workspace, module)
    failed = any(f.level == "failed" for f in findings)
    if as_json:
        show.as_json([f.as_dict() for f in findings])
    elif findings:
        show.table(["", "cell", "finding"], [(f.level, f.cell, f.message) for f in findings])
    if not as_json:
        click.echo(f"{module.slug} is {'not fit to be handed in' if failed else 'fit to be handed in'}")
    if failed:
        raise check_failed()


@group.command()
@module_argument
def complete(module: Module) -> None:
    """Validate, export, test and run the checkpoints; record it only if all of that succeeds.

    \b
    Example:
      tito module complete 02
    """
    from course.tito import states
    from course.tito.complete import complete as prove
    workspace = need()
    prove(workspace, module, lambda step, text: click.echo(f"{step:<11}{text}"))
    state = progress.read(workspace.state)
    done = sum(1 for m in states.shown_modules() if m.graded and state["modules"].get(m.number, {}).get("completed"))
    total = sum(1 for m in states.shown_modules() if m.graded)
    click.echo(f"complete   {module.title}: it is yours now, {done} of {total} modules of the framework")
    upcoming = states.next_module(state)
    if upcoming:
        click.echo(f"next       {_next_step(workspace, upcoming)}")
