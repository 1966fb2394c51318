"""`tito completion`: the script that teaches a shell to complete commands, modules and checkpoints."""

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    \b
    Example:
      bash:  echo 'eval "$(tito completion bash)"' >> ~/.bashrc
      zsh:   echo 'eval "$(tito completion zsh)"' >> ~/.zshrc
      fish:  tito completion fish > ~/.config/fish/completions/tito.fish
    """
    from click.shell_completion import get_completion_class

    from course.tito.main import cli
    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"no completion for {shell}")
    maker = found(cli, {}, "tito", "_TITO_COMPLETE")
    click.echo(maker.source_template % maker.source_vars())
