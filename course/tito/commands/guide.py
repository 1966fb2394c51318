"""`tito help`: first steps, the daily workflow, cures for trouble. Short texts, for reading in a terminal."""

import sys

import click

QUICK = """\
tito module start 01       put a module's notebook into your workspace
tito module test 01        run the tests in it
tito module export 01      make your code part of your framework, tinytorch/core
tito module complete 01    all checks at once; recorded when they all succeed
tito module status         where you are
tito checkpoint timeline   the way through the course
tito system doctor         when something does not work
tito COMMAND --help        every option, with an example"""

GETTING_STARTED = """\
1. In a class, open a terminal in JupyterLab (File > New > Terminal): the workspace is ready.
   On your own, make an empty folder and go there.
2. tito system doctor         every line should say ok; each failure comes with its cure.
3. tito demo quick            what you are going to build, running.
4. tito module start 01       then open the notebook that it names and follow it from top to bottom.
5. tito module complete 01    tells what is missing, or records the module and names the next one."""

WORKFLOW = """\
A module is one notebook. You read, write the marked cells, and run the tests below each of them.

1. tito module start 02       puts the notebook into modules/source/02_tensor; what is there stays.
   (In a class: or fetch it from the assignment list, Nbgrader > Assignment List.)
2. Work in the notebook and save it: the commands read the file, not the screen.
3. tito module test 02        the tests of the saved notebook, with what they expected.
4. tito module export 02      your code becomes tinytorch.core.tensor, and later modules import it.
5. tito module complete 02    validate, export, test, checkpoint; recorded if all of it succeeds.
6. In a class: submit in the assignment list. A module can be submitted again until it is due.

Later changes to a notebook take effect in the framework with the next export;
`tito module status` shows which modules went on after theirs."""

TROUBLESHOOTING = """\
something is odd        tito system doctor: each failure comes with its cure
a test fails            its message says what was expected; `tito module test NN` shows all of them
"not written yet"       a marked cell still raises NotImplementedError: write it, save, run again
"is missing"            a cell was deleted: undo that, or copy it from a fresh notebook
"is there 2 times"      a cell was copied: delete the copy, keep the one with your work
a fresh notebook        rename yours, `tito module start NN` puts the original there
old code is imported    save the notebook, `tito module export NN`, restart the kernel
whose code is it?       python -c "import tinytorch.core.tensor as t; print(t.__file__)"
submitting fails        your work is safe; look at `tito system doctor` and try again later
an unexplained message  TITO_DEBUG=1 tito ... shows where it comes from"""

TOPICS = {"quick": ("All you need on one page", QUICK), "getting-started": ("The first ten minutes", GETTING_STARTED),
          "workflow": ("How a module is done", WORKFLOW), "troubleshooting": ("Cures", TROUBLESHOOTING)}


@click.command("help")
@click.argument("topic", type=click.Choice(["getting-started", "workflow", "troubleshooting"]), required=False)
@click.option("--quick", is_flag=True, help="The commands you need, on one page.")
@click.option("--interactive", is_flag=True, help="Choose topics from a menu; prints all of them where there is no terminal.")
def guide(topic: str | None, quick: bool, interactive: bool) -> None:
    """First steps, the daily workflow, cures for trouble.

    \b
    Example:
      tito help getting-started
    """
    if sum([topic is not None, quick, interactive]) > 1:
        raise click.UsageError("give one of: a topic, --quick, --interactive")
    if interactive:
        _menu() if sys.stdin.isatty() and sys.stdout.isatty() else _everything()
    else:
        click.echo(_text(topic or "quick"))
        if not topic and not quick:
            click.echo("\nMore: tito help getting-started, workflow, troubleshooting, or tito help --interactive")


def _text(topic: str) -> str:
    title, text = TOPICS[topic]
    return f"{title}\n\n{text}"


def _everything() -> None:
    click.echo("\n\n".join(_text(topic) for topic in TOPICS))


def _menu() -> None:
    names = list(TOPICS)
    while True:
        for number, name in enumerate(names, 1):
            click.echo(f"  {number}  {TOPICS[name][0]}")
        click.echo("  q  leave")
        answer = click.prompt("Which one", default="q").strip().lower()
        if answer in ("q", "quit", "exit", ""):
            return
        if answer.isdigit() and 1 <= int(answer) <= len(names):
            click.echo(f"\n{_text(names[int(answer) - 1])}\n")
        elif answer in TOPICS:
            click.echo(f"\n{_text(answer)}\n")
        else:
            click.echo(f"\nthere is no {answer!r}: 1 to {len(names)}, or q\n")
