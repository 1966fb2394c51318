"""`tito system`: is everything here in order, and what is here."""

import click

from course.tito import show
from course.tito.failure import check_failed
from course.tito.names import Group, json_option
from course.tito.workspace import find


@click.group("system", cls=Group)
def group() -> None:
    """Check this machine; show versions, paths and limits.

    \b
    Example:
      tito system doctor
    """


@group.command()
@json_option
def doctor(as_json: bool) -> None:
    """Check everything that the course needs; each failure comes with its cure.

    \b
    Example:
      tito system doctor --json
    """
    from course.tito.doctor import examine
    with show.working("checking", quiet=as_json):
        checks = list(examine(find()))
    healthy = all(check.ok for check in checks)
    if as_json:
        show.as_json([check.as_dict() for check in checks])
    else:
        show.table(["check", "", "found"], [(c.name, "ok" if c.ok else "failed", c.found) for c in checks])
        for check in checks:
            if not check.ok:
                click.echo(f"\n{check.name}: {check.cure}")
        click.echo("\nall in order" if healthy else f"\n{sum(not c.ok for c in checks)} of {len(checks)} checks failed")
    if not healthy:
        raise check_failed()


@group.command()
@json_option
def info(as_json: bool) -> None:
    """Versions, paths, threads and the limits of this server.

    \b
    Example:
      tito system info
    """
    from course.tito.information import gather
    sections = gather(find())
    if as_json:
        show.as_json(sections)
        return
    for title, entries in sections.items():
        click.echo(f"{title}:")
        show.table(["", ""], [(f"  {key}", value) for key, value in entries.items()], header=False)
        click.echo()
