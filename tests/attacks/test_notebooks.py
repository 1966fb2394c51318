"""Hostile and unlucky notebooks: a cell costs itself at most, earlier and later cells keep their points."""

import pytest

GOOD = {"f": "def f(x): return x + 1", "test_f": "assert f(1) == 2"}
LATER = {"g": "def g(x): return x * 2", "test_g": "assert g(f(1)) == 4"}

DEADLY = {
    "os._exit": ("import os; os._exit(0)", "the process ended in the middle of the cell"),
    "os._exit with a code": ("import os; os._exit(3)", "exit code 3"),
    "kills itself": ("import os; os.kill(os.getpid(), 9)", "SIGKILL"),
    "kills all it can": ("import os\nos.kill(-1, 9)", "No such process"),
    "segmentation fault": ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
    "closes every descriptor": ("import os; os.closerange(0, 4096)", "exit code"),
    "endless loop": ("while True: pass", "more than 2 s"),
    "endless loop without signals": ("import signal\nsignal.signal(2, signal.SIG_IGN)\nwhile True: pass", "more than 2 s"),
    "endless loop that catches everything": ("while True:\n  try:\n    while True: pass\n  except BaseException: pass", "more than 2 s"),
    "memory bomb": ("hoard = []\nwhile True:\n  try: hoard.append(bytearray(b'x') * (1 << 20))\n  except MemoryError: pass", "200 MB"),
    "fork bomb": ("import os\nwhile True:\n  try: os.fork()\n  except OSError: pass", "40 processes"),
    "raw output flood": ("import os\nwhile True: os.write(1, b'x' * 65536)", "4000 kB"),
}


@pytest.mark.parametrize("name", DEADLY)
def test_a_deadly_cell_costs_only_itself(grade, name):
    code, sentence = DEADLY[name]
    graded = grade({**GOOD, "deadly": code, "test_it": "assert deadly()", **LATER},
                   cell_seconds=2, memory_mb=200, pids=40, output_kb=4000, wall_seconds=60, cpu_seconds=60)
    assert graded.passed() == ["test_f", "test_g"]
    assert sentence in graded.error("deadly"), graded.error("deadly")
    assert graded.verdict != "infra"


def test_a_deadly_function_costs_only_its_test(grade):
    graded = grade({**GOOD, "dies": "import os\ndef dies(): os._exit(0)", "test_dies": "assert dies() == 1", **LATER})
    assert graded.passed() == ["test_f", "test_g"]
    assert graded.error("test_dies").startswith("Stopped: ")


def test_the_budget_of_a_whole_notebook_holds_over_restarts(grade):
    hangs = {f"test_{number}": "while True: pass" for number in range(30)}
    graded = grade({**GOOD, **hangs}, cell_seconds=2, cpu_seconds=3, wall_seconds=60)
    assert graded.passed() == ["test_f"]
    assert graded.result.usage.cpu_seconds < 6
    assert "not run, because the notebook was stopped before" in graded.error("test_29")


def test_restarts_are_bounded(grade):
    graded = grade({**GOOD, **{f"test_{number}": "import os; os._exit(0)" for number in range(30)}})
    assert graded.passed() == ["test_f"]
    assert "not run" in graded.error("test_29")


FAILING = {
    "raises": ("1 / 0", "ZeroDivisionError: division by zero"),
    "sys.exit": ("import sys; sys.exit(0)", "SystemExit: 0"),
    "interrupt": ("raise KeyboardInterrupt", "KeyboardInterrupt: "),
    "syntax": ("def (", "SyntaxError: "),
    "null byte": ("x = 1\0", "source code string cannot contain null bytes"),
    "asks for input": ("input()", "EOFError: "),
    "recursion": ("def r(): return r()\nr()", "RecursionError: "),
    "deep syntax": ("(" * 100_000, "too many nested parentheses"),
    "an error that cannot be printed": ("class E(Exception):\n  def __str__(self): raise E\nraise E", "Error: "),
    "a value that cannot be printed": ("class V:\n  def __repr__(self): raise ValueError('no')\nV()", "ValueError: no"),
    "replaces the streams": ("import sys; sys.stdout = sys.stderr = None; raise ValueError('x')", "ValueError: x"),
    "memory at once": ("x = bytearray(4 << 30)", "asked for more memory than its limit of 1024 MB"),
    "disk": ("open('x', 'wb').write(bytes(100 << 20))", "filled 64 MB of disk"),
}


@pytest.mark.parametrize("name", FAILING)
def test_an_error_is_shown_and_costs_only_itself(grade, name):
    code, error = FAILING[name]
    graded = grade({**GOOD, "bad": code, **LATER})
    assert graded.passed() == ["test_f", "test_g"]
    assert error in graded.error("bad")


def test_a_test_that_fails_fails(grade):
    graded = grade({"f": "def f(x): return x", "test_f": "assert f(1) == 2, 'f(1) should be 2'", "test_none": "assert nothing"})
    assert graded.passed() == []
    assert graded.error("test_f") == "AssertionError: f(1) should be 2"


def test_hooks_into_later_cells_change_nothing(grade):
    """With IPython's kernel the first two gave 22 and 24 of 24 points: no transformer sees a later cell here."""
    hooks = {
        "transformer": "import ast\nclass T(ast.NodeTransformer):\n    def visit_Assert(self, node): return ast.Pass()\n"
                       "get_ipython().ast_transformers.append(T())",
        "inputs": "get_ipython().input_transformers_post.append(lambda lines: ['pass'])",
        "compile": "import builtins\nkeep = builtins.compile\nbuiltins.compile = lambda *a, **k: keep('pass', 'x', 'exec')",
        "assertion": "AssertionError = type('A', (BaseException,), {})",
    }
    for name, code in hooks.items():
        assert grade({"hook": code, "f": "def f(x): return x", "test_f": "assert f(1) == 2"}).passed() == [], name


FORGERIES = {
    "an answer on every descriptor": "outputs = []",
    "an answer for another cell": "outputs = []; cell = 'x'",
    "an answer with unknown outputs": "outputs = [{'output_type': 'html', 'data': '<script>'}]",
    "an answer with HTML": "outputs = [{'output_type': 'display_data', 'data': {'text/html': '<script>'}}]",
    "a picture that is none": "outputs = [{'output_type': 'display_data', 'data': {'text/plain': '', 'image/png': 'PHNjcmlwdD4='}}]",
    "a deep answer": "outputs = None; line = b'[' * 100000 + b'\\n'",
    "no JSON": "outputs = None; line = b'\\xff\\x00\\n'",
    "an endless answer": "outputs = None; line = b'x' * (1 << 20)",
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forged_answers_stop_the_cell_and_nothing_else(grade, name):
    """Whatever is written into the runner's channel: nothing reaches the notebook but checked outputs, and the rest is graded."""
    code = (f"import json, os\ncell = '2'\n{FORGERIES[name]}\n"
            "line = json.dumps({'cell': cell, 'outputs': outputs}).encode() + b'\\n' if outputs is not None else line\n"
            "for _ in range(2 if outputs is not None or len(line) < 1 << 20 else 20):\n"
            "  for fd in range(3, 64):\n    try: os.write(fd, line)\n    except OSError: pass\nos._exit(0)\n")
    graded = grade({**GOOD, "forger": code, **LATER}, output_kb=64000)
    assert graded.passed() == ["test_f", "test_g"]
    assert "script" not in str(graded.outputs["forger"])
    assert graded.verdict in ("crashed", "output")
    assert graded.error("forger").startswith("Stopped: ")


def test_a_test_is_not_there_before_its_turn(grade):
    """A solution cell that looks through the disk and its own memory does not find a test that comes later."""
    word = "only_in_the_hidden_test"
    search = ("import os, re\nfound = []\nword = 'only_in_the_' + 'hidden_test'\n"
              "for folder in ('/job', '/tmp', '/opt', '/dev/shm'):\n"
              "  for where, _, names in os.walk(folder):\n"
              "    found += [name for name in names if word.encode() in open(os.path.join(where, name), 'rb').read()]\n"
              "for line in open('/proc/self/maps'):\n"
              "  span, rights, *rest = line.split()\n"
              "  if rights.startswith('rw'):\n"
              "    begin, end = (int(one, 16) for one in span.split('-'))\n"
              "    with open('/proc/self/mem', 'rb') as memory:\n"
              "      try: memory.seek(begin); found += [span] * bool(re.search(rb'in_the_hidden_tes[t]_2', memory.read(end - begin)))\n"
              "      except (OSError, OverflowError, ValueError): pass\nprint(found)")
    graded = grade({"search": search, "test_hidden": f"{word}_2 = 1"})
    assert graded.error("search") is None
    assert graded.text("search") == "[]\n"
    assert graded.passed() == ["test_hidden"]


def test_what_one_submission_leaves_behind_is_gone_for_the_next(grade):
    leave = ("import os, pathlib\nhome = pathlib.Path.home()\n"
             "for path in ('.ipython/profile_default/startup/x.py', 'sitecustomize.py', '.local/lib/python3/usercustomize.py'):\n"
             "  (home / path).parent.mkdir(parents=True, exist_ok=True); (home / path).write_text('f = None')\nprint(home)")
    assert grade({"leave": leave}).text("leave") == "/job\n"
    # where this checkout itself lies below /tmp, its Python is mounted there
    look = "import os, sys; print(os.listdir('/job'), [n for n in os.listdir('/tmp') if not sys.prefix.startswith('/tmp/' + n)])"
    assert grade({"look": look, **GOOD}).text("look") == "[] []\n"


def test_files_of_the_submission_do_not_stand_in_for_libraries(grade):
    graded = grade({"use": "import random, helper; print(random.__file__.startswith('/job'), helper.x)"},
                   files={"random.py": b"", "json.py": b"raise SystemExit", "helper.py": b"x = 7", "sub/data.csv": b"1,2"})
    assert graded.text("use") == "False 7\n"


def test_output_is_kept_in_order_and_within_its_cap(grade):
    graded = grade({"out": "import sys\nprint('a'); print('b', file=sys.stderr); print('c'); 42", "flood": "print('x' * 5_000_000)"})
    assert [(one.get("name"), one.get("text")) for one in graded.outputs["out"]] == [
        ("stdout", "a\n"), ("stderr", "b\n"), ("stdout", "c\n"), (None, None)]
    assert graded.text("out").endswith("42")
    assert 190_000 < len(graded.text("flood")) < 210_000
    assert "output cut here" in graded.text("flood")


def test_figures_become_pictures(grade):
    pytest.importorskip("matplotlib")
    graded = grade({"plot": "import matplotlib.pyplot as plt\nplt.plot([1, 2]); plt.show()\nplt.figure(); plt.plot([3]);"})
    assert [sorted(one["data"]) for one in graded.outputs["plot"] if "data" in one] == [["image/png", "text/plain"]] * 2


def test_magics_and_display_do_not_fail_a_cell(grade):
    graded = grade({"magic": "%matplotlib inline\n!pip install x\ndisplay(1, 'two')\nx = 3", "test_x": "assert x == 3"})
    assert graded.passed() == ["test_x"]
    assert "'two'" in graded.text("magic")


def test_children_that_a_cell_forks_do_not_answer_for_it(grade):
    graded = grade({"fork": "import os\npid = os.fork()\nif pid: os.waitpid(pid, 0)\nprint('parent' if pid else 'child')", **GOOD})
    assert (graded.text("fork"), graded.passed(), graded.verdict) == ("parent\n", ["test_f"], "ok")


def test_the_same_job_gives_the_same_result(grade):
    cells = {"draw": "import random; import numpy as np\nprint(random.random(), np.random.rand(), hash('x'), [*{'a', 'b', 'c', 'd'}])",
             "sum": "a = np.random.default_rng(0).random((500, 500), dtype=np.float32); print(repr((a @ a).sum()))",
             "env": "import os; print(os.environ['OPENBLAS_NUM_THREADS'], os.environ['OPENBLAS_CORETYPE'], os.environ['PYTHONHASHSEED'])"}
    pytest.importorskip("numpy")
    first, second = grade(cells), grade(cells)
    assert first.error("sum") is None
    assert first.result.output_hashes == second.result.output_hashes
    assert first.result.job == second.result.job
