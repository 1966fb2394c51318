"""What the commands share: groups in the order they were written, and arguments that name a module or checkpoint."""

import click
from click.shell_completion import CompletionItem


class Group(click.Group):
    """Lists its commands in the order of definition, each with the whole first sentence of its help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, (command.help or "").strip().split("\n\n")[0].replace("\n", " "))
                                for name, command in self.commands.items()])


class ModuleName(click.ParamType):
    """`02_tensor`, `02`, `2`, `tensor` or an old number; an unknown one gets the nearest names and exit code 2."""

    name = "module"

    def convert(self, value, param, ctx):
        from course.curriculum import Module, UnknownName, find_module
        if isinstance(value, Module):
            return value
        try:
            module = find_module(value)
        except UnknownName as error:
            self.fail(str(error), param, ctx)
        if not module.ready:
            self.fail(f"{module.slug} ({module.title}) is not in this course yet", param, ctx)
        return module

    def get_missing_message(self, param, ctx=None):
        from course.curriculum import modules
        return "It is one of " + ", ".join(m.slug for m in modules() if m.ready)

    def shell_complete(self, ctx, param, incomplete):
        from course.curriculum import modules
        return [CompletionItem(m.slug, help=m.title) for m in modules()
                if m.ready and (m.slug.startswith(incomplete) or m.name.startswith(incomplete))]


class CheckpointName(click.ParamType):
    """`02`, `2` or `intelligence`."""

    name = "checkpoint"

    def convert(self, value, param, ctx):
        from course.curriculum import Checkpoint, UnknownName, find_checkpoint
        if isinstance(value, Checkpoint):
            return value
        try:
            checkpoint = find_checkpoint(value)
        except UnknownName as error:
            self.fail(str(error), param, ctx)
        if not checkpoint.ready:
            self.fail(f"checkpoint {checkpoint.number} ({checkpoint.name}) is not in this course yet", param, ctx)
        return checkpoint

    def get_missing_message(self, param, ctx=None):
        from course.curriculum import checkpoints
        return "It is one of " + ", ".join(f"{c.number} {c.name}" for c in checkpoints() if c.ready)

    def shell_complete(self, ctx, param, incomplete):
        from course.curriculum import checkpoints
        return [CompletionItem(c.number, help=c.question) for c in checkpoints()
                if c.ready and (c.number.startswith(incomplete) or c.name.startswith(incomplete))]


module_argument = click.argument("module", metavar="MODULE", type=ModuleName())
checkpoint_argument = click.argument("checkpoint", metavar="CHECKPOINT", type=CheckpointName())
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
