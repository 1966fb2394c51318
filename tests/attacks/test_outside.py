"""Attacks on tests that run outside of the sandbox: whatever the student's process does, it can only give wrong answers."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from hub import paths

TEST = {"test_f": "import numpy as np\nfor x in range(1000, 1007):\n    assert f(x) == x * 31337, f'f({x}) is not a qzkvj'"}
ARRAYS = {"test_f": "import numpy as np\nx = np.random.default_rng(5).normal(size=(3, 4))\n"
                    "assert np.allclose(f(x), np.cumsum(x, axis=1)), 'not the running sum'"}

FORGERIES = {
    "an object equal to everything": "class Yes:\n  __eq__ = __ne__ = __lt__ = __bool__ = lambda *a: True\n"
                                     "  __hash__ = object.__hash__\ndef f(x): return Yes()",
    "a number equal to everything": "class Yes(float):\n  def __eq__(self, other): return True\ndef f(x): return Yes(1)",
    "an integer equal to everything": "class Yes(int):\n  __eq__ = lambda *a: True\n  __hash__ = int.__hash__\ndef f(x): return Yes(1)",
    "a text equal to everything": "class Yes(str):\n  __eq__ = lambda *a: True\n  __hash__ = str.__hash__\ndef f(x): return Yes(1)",
    "reflected comparison": "class Yes:\n  def __req__(self, other): return True\n  def __eq__(self, other): return NotImplemented\n"
                            "  __array_priority__ = 1e9\ndef f(x): return Yes()",
    "NotImplemented": "def f(x): return NotImplemented",
    "no assertion errors any more": "import builtins\nbuiltins.AssertionError = type('A', (Exception,), {'__new__': lambda *a: None})\n"
                                    "def f(x): return 0",
    "a tracer": "import sys, threading\nsys.settrace(lambda *a: None); threading.settrace(lambda *a: None)\ndef f(x): return 0",
    "an exit": "import sys\ndef f(x): sys.exit(0)",
    "an exit of the process": "import os\ndef f(x): os._exit(0)",
    "an interrupt": "def f(x): raise KeyboardInterrupt",
    "an end of all loops": "def f(x): raise StopIteration",
    "an end of the generator": "def f(x): raise GeneratorExit",
    "an exception that passes for success": "class E(BaseException): pass\ndef f(x): raise E(0)",
    "the expected value in the caller's frames":
        "import sys\ndef f(x):\n  frame = sys._getframe()\n  while frame:\n    for value in [*frame.f_locals.values(), *frame.f_globals.values()]:\n"
        "      if isinstance(value, str) and '31337' in value and 'assert' in value: return x * 31337\n    frame = frame.f_back\n  return 0",
    "the test among all objects":
        "import gc\ndef f(x):\n  found = [o for o in gc.get_objects() if isinstance(o, dict) and any(isinstance(v, str) and 'qzkv' + 'j' in v\n"
        "           for v in list(o.values()))]\n  return x * 31337 if found else 0",
    "the test in the memory of the process":
        "import re\ndef f(x):\n  for line in open('/proc/self/maps'):\n    span, rights, *_ = line.split()\n    if rights.startswith('rw'):\n"
        "      begin, end = (int(one, 16) for one in span.split('-'))\n      with open('/proc/self/mem', 'rb') as memory:\n"
        "        try:\n          memory.seek(begin)\n          if re.search(rb'qzkv[j]', memory.read(end - begin)): return x * 31337\n"
        "        except (OSError, OverflowError, ValueError): pass\n  return 0",
    "the test on the disk": "import pathlib\ndef f(x):\n  for path in pathlib.Path('/').rglob('*.py'):\n    try:\n"
                            "      if 'qzkv' + 'j' in path.read_text(): return x * 31337\n    except (OSError, ValueError): pass\n  return 0",
    "the test in another process": "import pathlib\ndef f(x):\n  for path in pathlib.Path('/proc').glob('[0-9]*/cmdline'):\n"
                                   "    if b'examiner' in path.read_bytes(): return x * 31337\n  return 0",
    "a patched channel": "import sys\ncrossing = sys.modules.get('crossing')\nif crossing: crossing.CannotCross = ValueError\n"
                         "crossing.VERBS['call'] = lambda *a: 'yes'\ndef f(x): return 0",
    "a channel that claims more": "import sys\ncrossing = sys.modules['crossing']\ncrossing.spoken = lambda cls: ['eq', 'bool', 'array', 'lt']\n"
                                  "class Yes:\n  __eq__ = lambda *a: True\ndef f(x): return Yes()",
    "an answer in advance": "import os\ndef f(x):\n  for fd in range(3, 64):\n    try: os.write(fd, b'{\"value\": true, \"changed\": {}, \"freed\": []}\\n')\n"
                            "    except OSError: pass\n  return 0",
    "a question instead of an answer":
        "import sys\ncrossing = sys.modules['crossing']\n"
        "keep = crossing.End.served\ndef served(self, question):\n"
        "  return {'do': 'call', 'with': [['ref', 'builtins', 'exec'], ['s', 'import os; os._exit(0)']], 'words': {}, 'changed': {}, 'freed': []}\n"
        "crossing.End.served = served\ndef f(x): return 0",
    "an endless answer": "def f(x):\n  while True: yield 0",
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_answer_is_a_wrong_answer(grade, name):
    graded = grade({"f": FORGERIES[name], **TEST}, where="outside", cell_seconds=5, wall_seconds=30)
    assert graded.passed() == []
    assert graded.verdict != "infra"


FORGED_ARRAYS = {
    "an array equal to everything": "import numpy as np\nclass Yes(np.ndarray):\n  def __array_function__(self, *a, **k): return True\n"
                                    "  def __array_ufunc__(self, *a, **k): return True\ndef f(x): return np.zeros(x.shape).view(Yes)",
    "objects equal to everything": "import numpy as np\nclass Yes:\n  __eq__ = __sub__ = __rsub__ = __le__ = __abs__ = lambda *a: True\n"
                                   "def f(x):\n  out = np.empty(x.shape, object)\n  out[...] = Yes()\n  return out",
    "patched NumPy": "import numpy as np\nnp.allclose = np.isclose = lambda *a, **k: True\ndef f(x): return x",
    "the expected value written over the input": "def f(x):\n  x[...] = 0\n  return x",
    "a view of nothing": "import numpy as np\ndef f(x): return np.broadcast_to(np.nan, x.shape)",
    "an array that lies about its shape": "class Lies:\n  shape = (3, 4)\n  def __array__(self, *a, **k): return 'zero'\ndef f(x): return Lies()",
    "remembered answers": "import numpy as np\nknown = np.cumsum(np.random.default_rng(5).normal(size=(3, 4)), axis=1)\ndef f(x): return known",
}


@pytest.mark.parametrize("name", FORGED_ARRAYS)
def test_a_forged_array_is_a_wrong_array(grade, name):
    assert grade({"f": FORGED_ARRAYS[name], **ARRAYS}, where="outside", seed=7, cell_seconds=5).passed() == []


def test_the_honest_answers_pass(grade):
    assert grade({"f": "def f(x): return x * 31337", **TEST}, where="outside").passed() == ["test_f"]
    honest = "import numpy as np\ndef f(x): return np.cumsum(x, axis=1)"
    assert grade({"f": honest, **ARRAYS}, where="outside", seed=7).passed() == ["test_f"]


def test_random_inputs_differ_by_seed_and_not_by_run(grade):
    cells = {"f": "def f(x): return x", "test_f": "import numpy as np\nprint(f(np.random.default_rng(3).normal()))"}
    seen = [grade(cells, where="outside", seed=seed).text("test_f") for seed in (1, 1, 2, None)]
    assert seen[0] == seen[1] != seen[2]
    assert seen[3] not in seen[:3]
    assert grade(cells, where="fixed", seed=1).text("test_f") == seen[3]


SPIES = {
    "globals of a callback": "def f(g): return str(g.__globals__)",
    "code of a callback": "def f(g): return str(g.__code__.co_consts)",
    "closure of a callback": "def f(g): return g.__closure__[0].cell_contents",
    "class of a callback": "def f(g): return str(type(g).__mro__) + str(g.__class__.__subclasses__())",
    "private attributes of a witness": "def f(g): return str(g.__dict__) + str(g._secret) + str(g.__class__.__init__.__globals__)",
    "globals of a witness's method": "def f(g): return str(g.look.__func__.__globals__) + str(g.look.__self__)",
    "self of a bound method": "def f(g): return g.__self__",
    "an exception's frames": "def f(g):\n  try: g('not a number')\n  except Exception as error:\n    frame = error.__traceback__\n    names = []\n"
                             "    while frame:\n      names += [str(frame.tb_frame.f_locals), str(frame.tb_frame.f_globals.get('SECRET'))]\n"
                             "      frame = frame.tb_next\n    return ' '.join(names)",
}


@pytest.mark.parametrize("name", SPIES)
def test_a_callback_can_be_called_and_not_searched(grade, name):
    test = ("SECRET = 'only the test knows'\n" + (
            "class Witness:\n    def __init__(self): self._secret = SECRET\n    def look(self): return 1\ng = Witness()\n" if "witness" in name
            else "def g(x):\n    return len(SECRET) + x\n") +
            "try: print('found', f(g))\nexcept Exception as error: print(type(error).__name__, error)")
    graded = grade({"f": SPIES[name], "test_f": test}, where="outside")
    assert "only the test knows" not in graded.text("test_f")
    assert graded.error("test_f") is None


def test_the_sandbox_never_sees_a_test_that_runs_outside(grade):
    look = "import gc, sys\ndef f(x): return [str(o) for o in gc.get_objects() if isinstance(o, (str, dict)) and 'SECRET_WOR' + 'D' in str(o)]"
    graded = grade({"f": look, "test_f": "SECRET_WORD = 5\nassert f(SECRET_WORD) == [], f(SECRET_WORD)"}, where="outside")
    assert graded.passed() == ["test_f"]


def test_a_test_that_hangs_or_dies_costs_itself_only(grade):
    graded = grade({"f": "def f(x): return x", "test_hangs": "while True: pass", "test_dies": "import os; os._exit(0)",
                    "test_f": "assert f(3) == 3"}, where="outside", cell_seconds=2)
    assert graded.passed() == ["test_f"]
    assert "more than 2 s" in graded.error("test_hangs")


def test_after_a_test_that_hangs_others_use_the_same_objects(grade):
    """They run in a fresh examiner, which has not heard yet what kind of thing `f` is."""
    graded = grade({"f": "def f(x): return x", "test_1": "assert f(1) == 1", "test_hangs": "f(2)\nwhile True: pass",
                    "test_f": "assert f(3) == 3"}, where="outside", cell_seconds=2)
    assert graded.passed() == ["test_1", "test_f"]


def test_a_function_that_dies_costs_its_test_only(grade):
    graded = grade({"f": "import os\ndef f(x): os._exit(0) if x else None\ndef g(x): return x", "test_f": "assert f(1)",
                    "test_g": "assert g(2) == 2"}, where="outside")
    assert graded.passed() == ["test_g"]
    assert graded.error("test_f").startswith("Stopped: ")


def test_what_the_function_prints_and_where_it_fails_is_shown(grade):
    graded = grade({"f": "def f(x):\n    print('half way')\n    return 1 / x", "test_f": "f(0)"}, where="outside")
    assert "half way" in graded.text("test_f")
    assert graded.error("test_f") == "ZeroDivisionError: division by zero"
    trace = "\n".join(next(o for o in graded.outputs["test_f"] if o["output_type"] == "error")["traceback"])
    assert "return 1 / x" in trace
    assert "crossing.py" not in trace


def test_the_warm_examiner_ends_with_whoever_started_it():
    """Also when that was killed: nothing is left running, and one that was killed itself is replaced."""
    program = ("import os, sys, signal, time\nfrom autograder.exam.examination import Examination, _warm\n"
               "def pid():\n"
               "    with Examination([{'id': '1', 'name': 't', 'kind': 'test', 'where': 'outside', 'keeps': True, 'source': 'assert 1'}],\n"
               "                     None, [], sys.executable, dict(os.environ)) as examination:\n"
               "        assert examination.step(b't\"1\"', 20) == b'![]'\n"
               "    return next(iter(_warm.values()))[0].pid\n"
               "first = pid()\nassert pid() == first\nos.kill(first, signal.SIGKILL)\nprint(pid(), flush=True)\ntime.sleep(60)")
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=paths.REPO) as parent:
        examiner = int(parent.stdout.readline())
        assert Path(f"/proc/{examiner}").exists()
        parent.kill()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{examiner}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{examiner}").exists()
