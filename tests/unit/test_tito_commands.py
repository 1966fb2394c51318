"""The command line as a whole: fast, documented, honest exit codes, plain in pipes, no traceback for anybody."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from course.tito import main as tito_main
from course.tito.main import COMMANDS, OLDER, cli
from tests.need import need
from tests.unit.tito_support import REPO, tiny

TITO = [sys.executable, str(REPO / "bin" / "tito")]


def tito(*words: str, cwd: Path = REPO, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run([*TITO, *words], cwd=cwd, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL,
                          env={**os.environ, **environment})


def every_command() -> dict[str, click.Command]:
    """All commands that can be typed, by their words."""
    found: dict[str, click.Command] = {}

    def walk(command: click.Command, words: tuple[str, ...]) -> None:
        found[" ".join(words)] = command
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                walk(command.get_command(context, name), (*words, name))
    walk(cli, ())
    return found


# ---------------------------------------------------------------- help

@pytest.mark.parametrize("words", every_command())
def test_every_command_has_help_with_an_example(words):
    shown = CliRunner().invoke(cli, [*words.split(), "--help"])
    assert shown.exit_code == 0
    assert "Example:" in shown.output
    assert "tito" in shown.output.split("Example:")[1]


def test_the_promised_commands_are_there():
    promised = ["system doctor", "system info", "info", "demo quick", "help", "module start", "module status", "module test",
                "module export", "module validate", "module complete", "checkpoint status", "checkpoint timeline", "checkpoint test",
                "nbgrader generate", "nbgrader release", "nbgrader status", "nbgrader collect", "nbgrader autograde", "nbgrader feedback",
                "nbgrader formgrade", "nbgrader setup-instructor", "export", "test", "clean", "reset",
                "job submit checkpoint", "job submit profile", "job submit train", "job status", "job logs", "job fetch", "job cancel",
                "job verify", "grade autograde", "grade release", "grade collect", "grade manual", "grade feedback", "grade class-overview"]
    assert set(promised) <= set(every_command())


def test_commands_of_later_times_are_not_listed():
    listed = tito("--help").stdout
    for name in ("leaderboard", "olympics"):
        assert not re.search(rf"^  {name}\b", listed, re.MULTILINE)


@pytest.mark.parametrize("words", ["help", "help --quick", "help --interactive", "help getting-started", "help workflow",
                                   "help troubleshooting"])
def test_help_texts(words):
    shown = tito(*words.split())
    assert (shown.returncode == 0 and "tito module start" in shown.stdout) or "tito system doctor" in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 110


def test_help_names_only_commands_that_exist():
    known = every_command()
    for first, second in re.findall(r"tito (\w+) ([a-z]+)\b", tito("help", "--interactive").stdout):
        assert f"{first} {second}" in known or (first in known and not isinstance(known[first], click.Group)), f"tito {first} {second}"


def test_the_whole_way_to_a_command_exists():
    assert set(tito_main.WITHIN.values()) - {"help workflow"} <= set(every_command())
    assert not set(tito_main.WITHIN) & {*COMMANDS, *OLDER}


# ---------------------------------------------------------------- start

def test_help_starts_fast():
    times = []
    while len(times) < 10 and (len(times) < 3 or min(times) > 0.5):        # other programs can hold a run up, never speed it up
        times.append(_seconds("--help"))
    assert min(times) < 0.5, f"tito --help took {min(times):.2f} s at best"


def _seconds(*words: str) -> float:
    before = time.perf_counter()
    assert tito(*words).returncode == 0
    return time.perf_counter() - before


@pytest.mark.parametrize("words", ["--help", "module --help", "completion bash"])
def test_nothing_heavy_is_imported_for_help(words):
    shown = subprocess.run([sys.executable, "-X", "importtime", *TITO[1:], *words.split()], capture_output=True, text=True, timeout=60)
    imported = {line.rsplit("|", 1)[-1].strip() for line in shown.stderr.splitlines() if line.startswith("import time:")}
    assert "click" in imported
    assert not {"numpy", "rich", "nbformat", "jupytext", "nbgrader"} & imported


# ---------------------------------------------------------------- exit codes and messages

@pytest.mark.parametrize(("words", "said"), [
    ("module test 99", "there is no module '99'"),
    ("module start tensr", "did you mean tensor"),
    ("module test 11", "11_tokenization (Tokenization) is not in this course yet"),
    ("checkpoint test intelligenc", "did you mean intelligence"),
    ("checkpoint test 06", "not in this course yet"),
    ("modul status", "Did you mean"),
    ("module test", "Missing argument 'MODULE'"),
    ("module test", "01_setup, 02_tensor"),
    ("checkpoint test", "00 environment, 01 foundation, 02 intelligence"),
    ("doctor", "`tito system doctor`"),
    ("start 01", "`tito module start`"),
    ("module test 02 --jsn", "--json"),
    ("completion tcsh", "'tcsh'"),
    ("reset", "--confirm"),
    ("clean some", "'some'"),
    ("nbgrader generate", "give one module, or --all"),
    ("nbgrader generate 02 --all", "give one module, or --all"),
    ("test 01 --module 02", "two modules were named"),
    ("help workflow --quick", "give one of"),
])
def test_wrong_usage_is_told_and_exits_2(words, said, tmp_path):
    shown = tito(*words.split(), cwd=tmp_path, TINYTORCH_WORKSPACE=str(tmp_path))
    assert shown.returncode == 2, shown
    assert said in shown.stderr
    assert "Traceback" not in shown.stderr
    assert shown.stdout == ""


@pytest.mark.parametrize(("name", "meant"), [("02_tensor", "02"), ("02", "02"), ("2", "02"), ("tensor", "02"), ("00_setup", "01")])
def test_every_spelling_of_a_module_is_understood(name, meant, tmp_path):
    shown = tito("module", "test", name, TINYTORCH_WORKSPACE=str(tmp_path))
    assert shown.returncode == 2
    assert f"tito module start {meant}" in shown.stderr


def test_outside_a_workspace_the_way_to_one_is_shown(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "TINYTORCH_WORKSPACE"}
    shown = subprocess.run([*TITO, "module", "test", "01"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert shown.returncode == 2
    assert "tito module start 01" in shown.stderr
    assert list(tmp_path.iterdir()) == [], "looking must not leave anything behind"


def test_a_workspace_that_is_not_there_is_named(tmp_path):
    shown = tito("module", "test", "01", TINYTORCH_WORKSPACE=str(tmp_path / "gone"))
    assert shown.returncode == 2
    assert "is not a folder" in shown.stderr


def test_nobody_sees_a_traceback(monkeypatch, capsys):
    def broken(**_):
        raise RuntimeError("something nobody foresaw")
    monkeypatch.setattr(tito_main.cli, "main", broken)
    monkeypatch.delenv("TITO_DEBUG", raising=False)
    with pytest.raises(SystemExit) as stop:
        tito_main.main()
    said = capsys.readouterr().err
    assert stop.value.code == 1
    assert "something nobody foresaw" in said
    assert "TITO_DEBUG=1" in said
    assert "Traceback" not in said
    monkeypatch.setenv("TITO_DEBUG", "1")
    with pytest.raises(RuntimeError):
        tito_main.main()


def test_a_reader_that_leaves_early_is_no_error():
    running = subprocess.Popen([*TITO, "system", "info"], cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    running.stdout.close()
    assert running.stderr.read() == ""
    assert running.wait(60) in (1, 141)                     # which of the two depends on who notices first, click or we


def test_an_interrupt_ends_quietly(student):
    student.hand_in("01_setup", tiny("import time; time.sleep(50)"))
    running = subprocess.Popen([*TITO, "module", "test", "01"], cwd=student.home, env=student.environment(),
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))     # ignored in background jobs
    assert "running the tests" in running.stderr.readline()
    running.send_signal(signal.SIGINT)
    said = running.communicate(timeout=30)[1]
    assert running.returncode == 130
    assert student.progress["modules"] == {}
    assert "interrupted" in said
    assert "Traceback" not in said


# ---------------------------------------------------------------- pipes, colours, JSON

PRINTING = ["module status", "checkpoint status --detailed", "checkpoint timeline", "checkpoint timeline --horizontal", "system info",
            "demo quick", "--help", "help --interactive"]


@pytest.mark.parametrize("words", PRINTING)
def test_no_escape_codes_in_pipes(words):
    shown = tito(*words.split())
    assert shown.returncode == 0
    assert shown.stdout
    assert "\x1b" not in shown.stdout + shown.stderr


@pytest.mark.parametrize("words", ["module status", "checkpoint timeline", "demo quick"])
def test_colours_on_a_terminal_unless_no_color(words):
    coloured = re.compile(r"\x1b\[[0-9;]*3[0-7]m")
    assert coloured.search(on_a_terminal(words)) or words == "demo quick"
    assert not coloured.search(on_a_terminal(words, NO_COLOR="1"))


def on_a_terminal(words: str, typed: str = "", **environment: str) -> str:
    """What a command writes to a terminal of 100 columns."""
    main, side = pty.openpty()
    running = subprocess.Popen([*TITO, *words.split()], cwd=REPO, stdin=side, stdout=side, stderr=side, close_fds=True,
                               env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "50", **environment})
    os.close(side)
    if typed:
        os.write(main, typed.encode())
    written, deadline = b"", time.monotonic() + 60
    while time.monotonic() < deadline:
        if select.select([main], [], [], 0.2)[0]:
            try:
                written += os.read(main, 65536)
            except OSError:                                 # the other side is closed
                break
        elif running.poll() is not None:
            break
    assert running.wait(10) == 0
    os.close(main)
    return written.decode(errors="replace")


def test_the_interactive_help_is_a_menu_on_a_terminal():
    shown = on_a_terminal("help --interactive", typed="3\nq\n")
    assert "Which one" in shown
    assert "How a module is done" in shown


@pytest.mark.parametrize("words", ["module status --json", "checkpoint status --json", "checkpoint timeline --json", "system info --json"])
def test_json_is_json(words):
    shown = tito(*words.split())
    assert shown.returncode == 0
    assert json.loads(shown.stdout)


def test_ascii_terminals_get_ascii():
    for words in ("checkpoint timeline", "demo quick"):
        shown = tito(*words.split(), PYTHONIOENCODING="ascii", PYTHONUTF8="0")
        assert shown.returncode == 0
        assert shown.stdout.isascii()


# ---------------------------------------------------------------- completion

@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell):
    shown = tito("completion", shell)
    assert shown.returncode == 0
    assert "_TITO_COMPLETE" in shown.stdout


@pytest.mark.parametrize(("typed", "offered"), [("tito module start 0", "02_tensor"), ("tito che", "checkpoint"),
                                                ("tito checkpoint test 0", "01"), ("tito module start ten", "02_tensor"),
                                                ("tito nbgrader au", "autograde")])
def test_bash_completes_commands_and_modules(typed, offered):
    shown = tito(_TITO_COMPLETE="bash_complete", COMP_WORDS=typed, COMP_CWORD=str(len(typed.split()) - 1))
    assert f"plain,{offered}" in shown.stdout.splitlines()
    assert "plain,11_tokenization" not in shown.stdout


def test_the_bash_script_is_bash():
    import shutil
    need("bash", shutil.which("bash"), "install bash")
    checked = subprocess.run(["bash", "-n"], input=tito("completion", "bash").stdout, text=True, capture_output=True, timeout=30)
    assert checked.returncode == 0, checked.stderr


# ---------------------------------------------------------------- the demonstration

def test_demo_trains_a_real_network(tmp_path):
    began = time.perf_counter()
    shown = tito("demo", "quick", cwd=tmp_path)
    assert shown.returncode == 0
    assert time.perf_counter() - began < 20
    accuracy = float(re.search(r"names (\d+\.\d)% correctly", shown.stdout).group(1))
    assert accuracy > 93
    assert "1,797 handwritten digits" in shown.stdout
    assert "None of it comes from your tinytorch.core" in shown.stdout
    for slug in ("02_tensor", "06_autograd", "08_training"):
        assert slug in shown.stdout


def test_demo_learns_only_from_the_training_digits():
    import numpy as np

    from course.tito.demo_net import TESTED, train
    from tinytorch.data import digits
    images, labels = digits()
    *_, (_, net, held_out) = train(images, labels, epochs=3, seed=1)
    assert len(set(held_out.tolist())) == TESTED
    shuffled = labels.copy()
    shuffled[held_out] = np.roll(shuffled[held_out], 1)             # other answers for the held-out digits change nothing that is learned
    *_, (_, other, _) = train(images, shuffled, epochs=3, seed=1)
    assert all(np.array_equal(a, b) for a, b in zip(net.weights, other.weights, strict=True))


def test_demo_works_in_the_student_edition(student):
    shown = student.tito("demo", "quick")
    assert shown.returncode == 0
    assert "correctly" in shown.stdout


def test_lists_are_in_the_order_of_use():
    assert next(iter(COMMANDS)) == "module"
    assert "export" in OLDER
    module = every_command()["module"]
    assert module.list_commands(click.Context(module)) == ["start", "status", "test", "export", "validate", "complete"]
