"""The entry point: names every command, imports one only when it runs, and turns every failure into one clear line."""

import importlib
import os
import sys

import click

# command: (where it lives, one line for the list of commands)
COMMANDS = {
    "module": ("module:group", "Start, test, export and complete the modules."),
    "checkpoint": ("checkpoint:group", "Prove what you can do, and see how far you are."),
    "job": ("job:group", "Run your code on the autograder: checkpoints, profiles, trainings."),
    "system": ("system:group", "Check this machine; show versions, paths and limits."),
    "demo": ("demo:group", "See what you are going to build, running."),
    "nbgrader": ("nbgrader:group", "Instructors: generate, release, collect, autograde, feedback."),
    "grade": ("grade:group", "Instructors: the same steps, a word for each."),
    "help": ("guide:guide", "First steps, the daily workflow, cures for trouble."),
    "completion": ("completion:completion", "Print the shell's completion script."),
}
OLDER = {
    "info": ("system:info", "Same as `tito system info`."),
    "export": ("module:export", "Same as `tito module export`."),
    "test": ("older:test", "Test one module, or all that you have started."),
    "clean": ("older:clean", "`tito clean all` removes generated files."),
    "reset": ("older:reset", "`tito reset --confirm` forgets the recorded progress."),
}
# commands of a group that people type alone: the whole way to them
WITHIN = {"doctor": "system doctor", "start": "module start", "complete": "module complete", "validate": "module validate",
          "status": "module status", "timeline": "checkpoint timeline", "submit": "help workflow"}


class Commands(click.Group):
    """A group that knows its commands' names without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *OLDER]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS and cmd_name not in OLDER:
            return None
        where, _ = {**COMMANDS, **OLDER}[cmd_name]
        file, _, attribute = where.partition(":")
        return getattr(importlib.import_module(f"course.tito.commands.{file}"), attribute)

    def resolve_command(self, ctx: click.Context, args: list[str]):
        if args[0] not in self.list_commands(ctx) and not args[0].startswith("-") and not ctx.resilient_parsing:
            if args[0] in WITHIN:
                raise click.UsageError(f"No such command '{args[0]}'. Did you mean `tito {WITHIN[args[0]]}`?", ctx)
            raise click.exceptions.NoSuchCommand(args[0], possibilities=self.list_commands(ctx), ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, commands in (("Commands", COMMANDS), ("Other spellings", OLDER)):
            with formatter.section(title):
                formatter.write_dl([(name, short) for name, (_, short) in commands.items()])


def show_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from tinytorch import __version__
        click.echo(f"tito, TinyTorch {__version__}")
        ctx.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=show_version,
              help="Show the version and exit.")
def cli() -> None:
    """The command line of the TinyTorch course.

    \b
    Example:
      tito module start 01
    """


def main() -> None:
    """Run a command: exit 0 on success, 1 when the check failed, 2 for wrong usage, 130 when interrupted."""
    if os.environ.get("TITO_DEBUG"):
        sys.exit(_run())
    try:
        code = _run()
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("tito: interrupted", err=True)
        code = 130
    except BrokenPipeError:                                # the reader of a pipe left: nothing to say, nobody to say it to
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 141
    except Exception as error:
        click.echo(f"tito: {_unexpected(error)}", err=True)
        code = 1
    sys.exit(code)


def _run() -> int:
    try:
        result = cli.main(prog_name="tito", standalone_mode=False)
    except SystemExit:
        if type(sys.stdout).__name__.endswith("PacifyFlushWrapper"):       # click's own way with a broken pipe: exit 1
            raise BrokenPipeError from None
        raise
    sys.stdout.flush()                                     # a broken pipe shows itself here, not at interpreter exit
    return result if isinstance(result, int) else 0


def _unexpected(error: Exception) -> str:
    """One line for what nobody foresaw, with the way to the whole story."""
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return (f"stopped by an unexpected {type(error).__name__}: {error}\n"
            f"      TITO_DEBUG=1 tito {' '.join(sys.argv[1:])}   shows where; please report it with that output")
