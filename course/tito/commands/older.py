"""The older spellings: `tito test`, `tito clean all`, `tito reset --confirm`. Same code behind them."""

import click

from course.curriculum import Module
from course.tito import progress, show
from course.tito.failure import Failed, check_failed
from course.tito.names import ModuleName, json_option
from course.tito.workspace import need


@click.command()
@click.argument("module", metavar="[MODULE]", type=ModuleName(), required=False)
@click.option("--module", "named", metavar="MODULE", type=ModuleName(), help="The same as the argument.")
@json_option
def test(module: Module | None, named: Module | None, as_json: bool) -> None:
    """Test one module, or without a name all that you have started.

    \b
    Example:
      tito test --module tensor
    """
    if module and named and module != named:
        raise click.UsageError(f"two modules were named, {module.slug} and {named.slug}: give one")
    chosen = module or named
    if chosen:
        from course.tito.commands.module import run_tests
        run_tests(chosen, as_json)
    else:
        _test_all(as_json)


def _test_all(as_json: bool) -> None:
    from course.curriculum import modules
    from course.tito import tests_of
    workspace = need()
    started = [m for m in modules() if m.ready and m.graded and workspace.notebook(m).is_file()]
    if not started:
        raise Failed("no module has been started yet: `tito module start 01`", exit_code=2)
    rows: list[dict] = []
    for module in started:
        try:
            results = tests_of.run(workspace, module, quiet=as_json)
        except Failed as error:
            rows.append({"module": module.slug, "points": None, "of": None, "state": "failed", "failed": [error.message]})
            continue
        tests_of.record(workspace, module, results)
        reached, possible = tests_of.points(results)
        states = {tests_of.state(r) for r in results}
        rows.append({"module": module.slug, "points": reached, "of": possible, "state": next(
            word for word in ("failed", "not written", "passed") if word in states),
            "failed": [r.grade_id for r in results if not r.passed]})
    if as_json:
        show.as_json(rows)
    else:
        show.table(["module", "points", "result", "first failure"],
                   [(r["module"], "-" if r["of"] is None else f"{r['points']:g}/{r['of']:g}",
                     r["state"], r["failed"][0] if r["failed"] else "") for r in rows], right=["points"])
    if any(r["failed"] for r in rows):
        raise check_failed()


@click.command()
@click.argument("what", type=click.Choice(["all"]))
def clean(what: str) -> None:
    """Remove generated files: exports that their notebook can make again, and caches. Notebooks and progress stay.

    \b
    Example:
      tito clean all
    """
    from course.tito.cleaning import clean as remove
    workspace = need()
    removed = remove(workspace)
    for path in removed:
        click.echo(f"removed {workspace.short(path)}")
    click.echo(f"{len(removed)} removed; `tito module export NN` makes an export again" if removed else "nothing to remove")


@click.command()
@click.option("--confirm", is_flag=True, help="Really do it.")
def reset(confirm: bool) -> None:
    """Forget the recorded progress. Notebooks and exports stay, a copy of the record is kept.

    \b
    Example:
      tito reset --confirm
    """
    if not confirm:
        raise click.UsageError("this forgets which modules and checkpoints you completed (not your notebooks): "
                               "say `tito reset --confirm` if you mean it")
    workspace = need()
    copy = progress.set_aside(workspace.state)
    click.echo(f"progress forgotten; it is kept in {workspace.short(copy)}" if copy else "no progress was recorded yet")
