"""One file per command group. None is imported before a command of it runs, so that `tito --help` stays fast."""
