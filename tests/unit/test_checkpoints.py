"""Each checkpoint passes on the reference and fails when a piece it is about is stubbed, wrong by a sign or slow by an order."""

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from course.checkpoints.run import OWN, capability, functions, run
from course.curriculum import checkpoints, find_checkpoint, find_module, modules

REPO = Path(__file__).resolve().parents[2]
CORE = REPO / "tinytorch" / "core"
PIECES = {"00": "utils", "01": "tensor", "02": "activations", "03": "layers", "04": "losses", "08": "autograd", "09": "optimizers",
          "10": "training"}

# Checkpoints about parts of several files: which functions of which file.
PARTS = {
    "05": {"spatial": ("conv2d", "_", "max_pool2d", "Conv2d.__init__", "Conv2d.forward")},
    "07": {"layers": ("normalize", "LayerNorm.__init__", "LayerNorm.forward",
                      "BatchNorm.__init__", "BatchNorm.remember", "BatchNorm.forward"),
           "spatial": ("batch_norm2d", "BatchNorm2d.forward")},
    "11": {"layers": ("Dropout.__init__", "Dropout.forward"),
           "optimizers": ("Optimizer.update", "AdamW.__init__", "AdamW.update"),
           "training": ("evaluate_model", "EarlyStopping.__init__", "EarlyStopping.update", "EarlyStopping.worn_out", "Trainer.fit"),
           "dataloader": ("RandomHorizontalFlip.__init__", "RandomHorizontalFlip.__call__", "RandomCrop.__init__",
                          "RandomCrop.__call__", "DataLoader.load")},
}
TIMED = {"05": ("conv2d", "conv2d.derivative", "max_pool2d", "max_pool2d.derivative"),
         "07": ("normalize", "LayerNorm.forward", "BatchNorm.forward", "batch_norm2d", "BatchNorm2d.forward"),
         "11": ("Dropout.forward", "RandomHorizontalFlip.__call__", "RandomCrop.__call__")}

# What a checkpoint is not about, with the reason.
OF_LATER_MODULES = {"Tensor.backward", "op.backward"}                       # 06 tests them
CONVENIENCE = {"Tensor.__bool__", "Tensor.__array__", "Activation.__repr__", "Module.__repr__", "Dropout.extra_repr",
               "Loss.__repr__"}                                             # no capability hangs on them
NOT_TESTED = OF_LATER_MODULES | CONVENIENCE


def workspace(folder: Path, **replaced: str) -> Path:
    """A student's workspace with the reference as exports, some files replaced."""
    core = folder / "tinytorch" / "core"
    core.mkdir(parents=True)
    (folder / ".tito").mkdir()
    tested = {find_module(number).export for checkpoint in checkpoints() if checkpoint.ready for number in checkpoint.after}
    for name in tested.union(*PARTS.values()):
        (core / f"{name}.py").write_text(replaced.get(name) or (CORE / f"{name}.py").read_text())
    return folder


def outcome(number: str, folder: Path) -> list:
    return list(run(find_checkpoint(number), folder))


@pytest.mark.parametrize("checkpoint", [checkpoint for checkpoint in checkpoints() if checkpoint.ready], ids=lambda one: one.number)
def test_it_asks_for_no_module_that_comes_later(checkpoint):
    last = max(checkpoint.after)
    later = {f"tinytorch.core.{module.export}" for module in modules() if module.export and module.number > last}
    text = next((REPO / "course" / "checkpoints").glob(f"checkpoint_{checkpoint.number}_*.py")).read_text()
    imported = {node.module for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)}
    assert not imported & later, f"checkpoint {checkpoint.number} follows module {last} and imports {imported & later}"


@pytest.mark.parametrize("number", [*PIECES, *PARTS])
def test_the_reference_passes(number, tmp_path):
    results = outcome(number, workspace(tmp_path))
    assert [(r.capability, r.message) for r in results if not r.passed] == []
    assert [r.capability for r in results] == [OWN, *map(capability, functions(find_checkpoint(number)))]


def test_every_ready_checkpoint_is_mutated_here():
    assert {c.number for c in checkpoints() if c.ready} == {*PIECES, *PARTS}


# ---------------------------------------------------------------- mutations

Mutant = tuple[str, str]                                                    # (what was done, the mutated file)


def named_functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from ((f"{node.name}.{inner.name}", inner) for inner in node.body if isinstance(inner, ast.FunctionDef))


def stubbed(text: str) -> Iterator[Mutant]:
    """Each function in turn raises NotImplementedError, as before the student wrote it."""
    for position, (name, _) in enumerate(list(named_functions(ast.parse(text)))):
        if name not in NOT_TESTED:
            tree = ast.parse(text)
            node = list(named_functions(tree))[position][1]
            node.body = ast.parse("raise NotImplementedError").body
            yield f"{name} stubbed", ast.unparse(tree)


SWAPS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Lt: ast.GtE, ast.Gt: ast.LtE,
         ast.GtE: ast.Lt, ast.LtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}


def wrong_signs(text: str) -> Iterator[Mutant]:
    """Each + - * / and comparison in turn is its opposite, each minus sign in turn is gone."""
    for position, (name, node) in enumerate(list(operations(ast.parse(text)))):
        tree = ast.parse(text)
        target = list(operations(tree))[position][1]
        if isinstance(target, ast.UnaryOp):
            target.op = ast.UAdd()
        elif isinstance(target, ast.BinOp):
            target.op = SWAPS[type(target.op)]()
        else:
            target.ops[0] = SWAPS[type(target.ops[0])]()
        yield f"{name}, line {node.lineno}: {ast.unparse(node)} became {ast.unparse(target)}", ast.unparse(tree)


def operations(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    for name, function in named_functions(tree):
        if name in NOT_TESTED:
            continue
        messages = {id(inner) for node in ast.walk(function) if isinstance(node, ast.JoinedStr) for inner in ast.walk(node)}
        for node in ast.walk(function):
            if id(node) in messages:
                continue                                                    # wording is not what a checkpoint is about
            if (isinstance(node, ast.BinOp) and type(node.op) in SWAPS) \
                    or (isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS) \
                    or (isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)):
                yield name, node


WORKING_METHODS = ("op.__call__", "Activation.__call__", "Module.state_dict", "Module.load_state_dict", "Sequential.forward",
                   "Dropout.forward", "LayerNorm.forward", "BatchNorm.forward", "MSELoss.__call__", "MAELoss.__call__",
                   "Optimizer.update", "SGD.direction", "Adam.direction", "AdamW.update")
SLOW = """
import numpy as _np
def _twenty_times(function):
    def slow(*inputs, **options):
        for _ in range(19):
            made = function(*[x.copy(order="K") if isinstance(x, _np.ndarray) else x for x in inputs], **options)
            if hasattr(made, "__next__"):
                list(made)                          # a generator works when it is asked
            for part in made if isinstance(made, tuple) else ():
                if callable(part):
                    part()                          # a rule may return functions that make the gradients
        return function(*inputs, **options)
    return slow
if "{name}".endswith(".derivative") or isinstance({name}, type(lambda: 0)):
    {name} = _twenty_times({name})
else:
    {name}.forward = _twenty_times({name}.forward)
"""


def slowed(text: str, methods: tuple[str, ...] = WORKING_METHODS) -> Iterator[Mutant]:
    """Each function, op and working method in turn does its work twenty times."""
    tree = ast.parse(text)
    names = [name for name, _ in named_functions(tree) if name != "_"] + rules(tree)
    names += [target.id for node in tree.body if isinstance(node, ast.Assign) for part in node.targets
              for target in ast.walk(part) if isinstance(target, ast.Name)]
    for name in names:
        if "." not in name or name in methods or name.endswith(".derivative"):
            yield f"{name} does its work twenty times", text + SLOW.format(name=name)


def rules(tree: ast.Module) -> list[str]:
    """`mul.derivative` for each function under `@mul.backward`."""
    decorators = [ast.unparse(d) for node in tree.body if isinstance(node, ast.FunctionDef) for d in node.decorator_list]
    return [d.removesuffix("backward") + "derivative" for d in decorators if d.endswith(".backward")]


COPYING = """
_looking = {name}.forward if hasattr({name}, "forward") else {name}
def _copying(*inputs, **options):
    result = _looking(*inputs, **options)
    return Tensor(result.data.copy()) if isinstance(result, Tensor) else result.copy()
if hasattr({name}, "forward"):
    {name}.forward = _copying
else:
    {name} = _copying
"""
VIEWS = {"00": ["tiles"], "01": ["reshape", "transpose", "getitem"]}


def copied(text: str) -> Iterator[Mutant]:
    """Each function that promises a view in turn gives a copy."""
    text = text if "Tensor" in text else f"Tensor = type('Nobody', (), {{}})\n{text}"
    for name in (name for names in VIEWS.values() for name in names if f"\n{name} = " in text or f"\ndef {name}(" in text):
        yield f"{name} copies", text + COPYING.format(name=name)


# Not slow by an order as a whole: what they do themselves is a small part of a call.
NOT_TIMED = {"hello_tinytorch", "best_ms", "one_tuple",                        # best_ms calls as often as it is told to
             "reshape", "transpose", "getitem",                             # a tenth of a microsecond; a copy there is another mutant
             "as_tensor", "linear_shape", "same_shape", "walk",             # some microseconds of a call, or of a whole training
             "L1Loss"}                                                      # another name

TEMPLATE = """
import os, sys
import numpy
from course.checkpoints import support
for line in sys.stdin:
    number, place, names = line.rstrip("\\n").split("\\t")
    if (child := os.fork()) == 0:
        try:
            support.enter(place, number)
            for name in names.split():
                support.attempt(name)
        except BaseException:
            os._exit(1)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Template:
    """A process with NumPy imported that forks for each mutant: the checkpoint's own functions, without a new start each time."""

    def __init__(self):
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(REPO)}
        self.process = subprocess.Popen([sys.executable, "-P", "-c", TEMPLATE], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True, env=environment, stderr=subprocess.DEVNULL)

    def notices(self, number: str, place: Path, last_first: bool) -> bool:
        names = functions(find_checkpoint(number))[::-1 if last_first else 1]
        self.process.stdin.write(f"{number}\t{place}\t{' '.join(names)}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip() != "0"

    def close(self):
        self.process.stdin.close()
        self.process.wait(10)


@pytest.fixture(scope="module")
def template():
    made = Template()
    yield made
    made.close()


def survivors(template: Template, number: str, mutants: list[Mutant], folder: Path, last_first: bool = False, piece: str = "") -> list[str]:
    """The mutants that a checkpoint does not notice. The tests of speed stand last: they come first when it is about speed."""
    found = []
    for index, (what, text) in enumerate(mutants):
        place = workspace(folder / str(index), **{piece or PIECES[number]: text})
        if not template.notices(number, place, last_first):
            found.append(what)
        shutil.rmtree(place)
    return found


def reference(number: str) -> str:
    return (CORE / f"{PIECES[number]}.py").read_text()


@pytest.mark.parametrize("number", PIECES)
def test_the_template_sees_the_reference_pass(number, template, tmp_path):
    assert survivors(template, number, [("nothing", reference(number))], tmp_path) == ["nothing"]


@pytest.mark.parametrize("number", PIECES)
@pytest.mark.parametrize("kind", [stubbed, wrong_signs, slowed])
def test_every_mutant_is_noticed(number, kind, template, tmp_path):
    mutants = [m for m in kind(reference(number)) if m[0].split(" does")[0] not in NOT_TIMED]
    assert len(mutants) >= 4, "the mutations found nothing to change: are they still written for these files?"
    assert survivors(template, number, mutants, tmp_path, last_first=kind is slowed) == []


@pytest.mark.parametrize("number", ["00", "01"])
def test_every_copy_in_place_of_a_view_is_noticed(number, template, tmp_path):
    mutants = list(copied(reference(number)))
    assert len(mutants) == len(VIEWS[number])
    assert survivors(template, number, mutants, tmp_path) == []


@pytest.mark.parametrize(("number", "piece"), [(number, piece) for number, parts in PARTS.items() for piece in parts])
def test_every_mutant_of_a_part_is_noticed(number, piece, template, tmp_path):
    names, text = PARTS[number][piece], (CORE / f"{piece}.py").read_text()
    wrong = [m for m in (*stubbed(text), *wrong_signs(text)) if m[0].split(",")[0].split(" ")[0] in names]
    assert {m[0].split(" ")[0] for m in wrong if m[0].endswith("stubbed")} == set(names), "are these functions still in this file?"
    assert survivors(template, number, wrong, tmp_path, piece=piece) == []
    slow = [m for m in slowed(text, TIMED[number]) if m[0].split(" ")[0] in TIMED[number]]
    assert slow or not {name.partition(".derivative")[0] for name in TIMED[number]} & set(names)
    assert survivors(template, number, slow, tmp_path, last_first=True, piece=piece) == []


LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
from course.checkpoints import support
some, often = (lambda: sum(range(10_000))), (lambda: [sum(range(10_000)) for _ in range(30)])
print(sum(support._cpu_seconds(some) == 0 for _ in range(200)))
support.fast(some, some, "the same", times=3)
try:
    support.fast(often, some, "thirty times the same", times=3)
except AssertionError as error:
    print(error)
"""


def test_work_is_timed_where_cpu_time_is_limited():
    """As it is in a sandbox, where Linux counts a process's CPU time in ticks: short work took none, and everything was too slow."""
    done = subprocess.run([sys.executable, "-c", LIMITED], cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    none, said = done.stdout.splitlines()
    assert none == "0"
    assert said.startswith("thirty times the same took")
