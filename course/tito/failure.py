"""The one exception that commands raise for what a user can mend: printed as one line, never as a traceback."""

import click


class Failed(click.ClickException):
    """Stops a command with a message. Exit code 1: the check failed; 2: wrong usage."""

    def __init__(self, message: str, exit_code: int = 1):
        super().__init__(message)
        self.exit_code = exit_code                   # type: ignore[misc]

    def show(self, file=None) -> None:
        click.echo(f"tito: {self.message}", file=file, err=file is None)


def check_failed() -> click.exceptions.Exit:
    """What to raise when the output has said everything already: exit code 1."""
    return click.exceptions.Exit(1)
