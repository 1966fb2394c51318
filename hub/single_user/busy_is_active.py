"""A Jupyter server extension: whoever computes is not idle, though the page may be closed and the program silent.

Jupyter counts messages as activity, so a cell that trains for hours without printing looks idle and its server is
culled. Once a minute this notes activity for a busy kernel, and for a terminal whose programs used the processor since
the last look.
"""

from datetime import UTC, datetime

from tornado.ioloop import PeriodicCallback

INTERVAL = 60            # seconds
CPU_SECONDS = 0.5        # more than an editor or a shell needs in that time


class Watch:
    """Looks at one server's kernels and terminals."""

    def __init__(self, app):
        self.app, self.used = app, {}

    def look(self):
        if self.kernels_busy() or self.terminals_busy():
            # the server takes the newest of all settings that end in _last_activity
            self.app.web_app.settings["work_last_activity"] = datetime.now(UTC)

    def kernels_busy(self):
        manager = self.app.kernel_manager
        kernels = [manager.get_kernel(kernel) for kernel in manager.list_kernel_ids()]
        return any(getattr(kernel, "execution_state", "") == "busy" for kernel in kernels)

    def terminals_busy(self):
        terminals = getattr(self.app.web_app.settings.get("terminal_manager"), "terminals", {})
        used = {name: cpu_seconds(terminal.ptyproc.pid) for name, terminal in terminals.items()}
        before, self.used = self.used, used
        return any(seconds - before.get(name, 0.0) > CPU_SECONDS for name, seconds in used.items())


def cpu_seconds(pid):
    """CPU time of a process and all that it started and has not yet waited for or has."""
    import psutil  # here, since few servers have a terminal open
    try:
        shell = psutil.Process(pid)
        processes = [shell, *shell.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    total = 0.0
    for process in processes:
        try:
            total += sum(process.cpu_times()[:4])      # own user and system, and those of ended children
        except psutil.NoSuchProcess:
            continue
    return total


def _jupyter_server_extension_points():
    return [{"module": "busy_is_active"}]


def _load_jupyter_server_extension(app):
    PeriodicCallback(Watch(app).look, INTERVAL * 1000).start()
