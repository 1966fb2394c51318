"""`tito checkpoint`: prove what you can do, and see how far you are."""

import click

from course.curriculum import Checkpoint, checkpoints, find_module
from course.tito import progress, show
from course.tito.failure import check_failed
from course.tito.names import Group, checkpoint_argument, json_option
from course.tito.workspace import find, need


@click.group("checkpoint", cls=Group)
def group() -> None:
    """Prove what you can do, and see how far you are.

    CHECKPOINT is `02`, `2` or `intelligence`.

    \b
    Example:
      tito checkpoint test 02
    """


@group.command()
@click.option("--detailed", is_flag=True, help="Every capability that was tested, with its result.")
@json_option
def status(detailed: bool, as_json: bool) -> None:
    """The questions, and which of them you can answer with yes.

    \b
    Example:
      tito checkpoint status --detailed
    """
    rows = _rows(progress.read(find().state))
    if as_json:
        show.as_json(rows)
        return
    show.table(["checkpoint", "can I ...", "after", "state", "when"],
               [(f"{r['checkpoint']} {r['name']}", _question(r["question"]), ", ".join(r["after"]), r["state"], r["when"] or "-")
                for r in rows])
    if detailed:
        _print_capabilities(rows)
    passed, known = sum(r["state"] == "passed" for r in rows), sum(r["state"] != "not in this course yet" for r in rows)
    click.echo(f"\n{passed} of {known} passed" + (f"; {len(rows) - known} more come with later modules" if known < len(rows) else ""))


def _rows(state: progress.State) -> list[dict]:
    from course.tito import states
    rows = []
    for checkpoint in checkpoints():
        recorded = state["checkpoints"].get(checkpoint.number, {})
        rows.append({"checkpoint": checkpoint.number, "name": checkpoint.name, "question": checkpoint.question,
                     "after": [find_module(number).slug for number in checkpoint.after],
                     "state": states.checkpoint_state(checkpoint, state), "when": recorded.get("when"),
                     "capabilities": recorded.get("capabilities", {})})
    return rows


def _question(text: str) -> str:
    return text.removeprefix("Can I ")


def _print_capabilities(rows: list[dict]) -> None:
    from course.checkpoints.run import capability, functions
    for row, checkpoint in zip(rows, checkpoints(), strict=True):
        if checkpoint.ready:
            click.echo(f"\n{row['checkpoint']} {row['name']}")
            known = row["capabilities"] or {capability(name): None for name in functions(checkpoint)}
            show.table(["", ""], [("open" if done is None else "passed" if done else "failed", name) for name, done in known.items()])


@group.command()
@click.option("--horizontal", is_flag=True, help="One line from left to right instead of one line per checkpoint.")
@json_option
def timeline(horizontal: bool, as_json: bool) -> None:
    """Draw the way through the course: what is done, what is next, what is open.

    \b
    Example:
      tito checkpoint timeline --horizontal
    """
    from course.tito import timeline as drawing
    stops = drawing.stops(progress.read(find().state))
    if as_json:
        show.as_json([stop.as_dict() for stop in stops])
    else:
        (drawing.horizontal if horizontal else drawing.vertical)(stops)


@group.command()
@checkpoint_argument
@click.option("--verbose", is_flag=True, help="Also show times and what your code printed.")
@json_option
def test(checkpoint: Checkpoint, verbose: bool, as_json: bool) -> None:
    """Run a capability test against your own exports, and record the result.

    \b
    Example:
      tito checkpoint test 01 --verbose
    """
    from course.tito import capabilities
    workspace = need()
    results = capabilities.run_all(checkpoint, workspace, quiet=as_json)
    capabilities.record(checkpoint, workspace, results)
    passed = capabilities.passed(results)
    if as_json:
        show.as_json({"checkpoint": checkpoint.number, "passed": passed, "capabilities": [r.as_dict() for r in results]})
    else:
        _print_results(checkpoint, results, passed, verbose)
    if not passed:
        raise check_failed()


def _print_results(checkpoint: Checkpoint, results, passed: bool, verbose: bool) -> None:
    from course.tito import capabilities
    columns = ["capability", "result", *(["ms"] if verbose else [])]
    show.table(columns, [(r.capability, capabilities.state(r), *([f"{r.seconds * 1000:.0f}"] if verbose else []))
                         for r in results], right=["ms"])
    if verbose:
        for r in results:
            if r.printed:
                click.echo(f"\n{r.capability} printed:\n{r.printed.rstrip()}")
    capabilities.print_failures(results)
    states = [capabilities.state(r) for r in results]
    counts = [f"{states.count(word)} of {len(results)} {word}" for word in ("failed", "not written") if word in states]
    answer = "Yes" if passed else f"Not yet: {', '.join(counts)}"
    click.echo(f"\n{checkpoint.number} {checkpoint.question} {answer}")
