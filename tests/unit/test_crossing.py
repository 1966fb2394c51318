"""Objects across a wall: what a test does with a remote object is what it would do with the object itself.

Both ends run here, in two threads, joined by queues of JSON texts.
"""

import copy
import json
import queue
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from autograder.exam.crossing import CannotCross, Far, Near

STUDENT = """
import numpy as np

class Box:
    count = 0
    def __init__(self, *content): self.content = list(content); Box.count += 1
    def __len__(self): return len(self.content)
    def __getitem__(self, index): return self.content[index]
    def __setitem__(self, index, value): self.content[index] = value
    def __contains__(self, item): return item in self.content
    def __iter__(self): return iter(self.content)
    def __call__(self, function, *more, **words): return [function(each, *more, **words) for each in self.content]
    def __add__(self, other): return Box(*self.content, *other)
    def __radd__(self, other): return Box(*other, *self.content)
    def __matmul__(self, other): return "matmul"
    def __neg__(self): return Box(*self.content[::-1])
    def __float__(self): return float(len(self))
    def __bool__(self): return bool(self.content)
    def __enter__(self): self.content.append("in"); return self
    def __exit__(self, kind, error, trace): self.content.append(kind and kind.__name__); return kind is ValueError
    def __repr__(self): return f"Box{tuple(self.content)}"
    @property
    def first(self): return self.content[0]
    def name(self): return "box"

class Late(Exception):
    def __init__(self, days): super().__init__(f"{days} days late"); self.days = days

def same(x): return x
def twice(f, x): return f(f(x))
def late(): raise Late(3)
def fail(kind, *arguments): raise kind(*arguments)
def fill(x, value): x[...] = value
def view(x): return x[1:, ::2]
def step_twice(notes, x): return notes.step(x) + notes.step(x)
def peek(notes): return notes.__dict__
def halves(n):
    while n > 1:
        n //= 2
        yield n
def kinds(): return Box, Late, np.float32, int, same
kept = []
def keep(x): kept.append(x); return x
def given_back(): return kept[-1]
def change_kept(): kept[-1][...] = 9
"""


@pytest.fixture
def near():
    return ends()[0]


def ends():
    names: dict = {}
    exec(STUDENT, names)
    to_far, to_near = queue.Queue(), queue.Queue()

    def send(queue_there, queue_here):
        def exchange(message):
            queue_there.put(json.dumps(message))
            return json.loads(queue_here.get(timeout=20))
        return exchange

    far = Far(send(to_near, to_far), names)

    def serve():
        while True:
            to_near.put(json.dumps(far.served(far.unpacked(json.loads(to_far.get())))))

    threading.Thread(target=serve, daemon=True).start()
    return Near(send(to_far, to_near)), far


scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.binary(),
                    st.complex_numbers(allow_nan=False))
values = st.recursive(scalars, lambda inner: st.one_of(
    st.lists(inner, max_size=3), st.tuples(inner, inner), st.dictionaries(st.text(), inner, max_size=3),
    st.sets(st.integers(), max_size=3)), max_leaves=10)


@settings(deadline=None)
@given(values)
def test_plain_values_come_back_as_they_went(value):
    back = ends()[0].name("same")(value)
    surrogates = "surrogates" if "\\ud" in ascii(value) else ""             # half a character has no bytes
    assert surrogates or (back == value and type(back) is type(value))


@settings(deadline=None)
@given(st.sampled_from(["float32", "float64", "int64", "uint8", "bool", "complex64", "<U3"]).flatmap(
    lambda dtype: arrays(dtype, array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))), st.booleans())
def test_arrays_keep_numbers_type_shape_and_identity(array, fortran):
    array = np.asfortranarray(array) if fortran and array.ndim else array
    near, far = ends()
    back = near.name("same")(array)
    assert back is array
    there = far.arrays[next(iter(far.arrays))][0] if far.arrays else array
    assert (there.dtype, there.shape) == (array.dtype, array.shape)
    assert there.tobytes() == array.tobytes()


def test_views_look_into_the_same_memory(near):
    x = np.arange(12.0).reshape(3, 4).copy()
    view = near.name("view")(x)
    assert view.base is x
    assert (view == x[1:, ::2]).all()
    near.name("fill")(view, -1)
    assert (x[1:, ::2] == -1).all()
    assert near.name("view")(x[::2]).tolist() == x[::2][1:, ::2].tolist()


def test_what_either_end_writes_the_other_sees(near):
    x = np.zeros(3)
    near.name("keep")(x)
    x[1] = 5
    assert near.name("given_back")()[1] == 5
    assert not near.written
    near.name("change_kept")()
    assert (x == 9).all()
    assert near.written


def test_objects_behave(near):
    box_class = near.name("Box")
    box = box_class(1, "two", [3])
    assert isinstance(box, box_class)
    assert not isinstance(3, box_class)
    assert (len(box), box[1], box.first, box.name(), float(box), repr(box), list(box)) == (
        3, "two", 1, "box", 3.0, "Box(1, 'two', [3])", [1, "two", [3]])
    assert "two" in box
    assert 7 not in box
    box[0] = 10
    box.label = "mine"
    assert (box.first, box.label) == (10, "mine")
    assert [type(each).__name__ for each in (box + [4], [0] + box, -box)] == ["Box"] * 3
    assert list([0] + box) == [0, 10, "two", [3]]
    assert box @ 1 == "matmul"
    assert not box_class()
    assert box_class.count == 6
    with pytest.raises(AttributeError, match="no_such"):
        box.no_such  # noqa: B018
    assert not hasattr(box, "no_such")
    with pytest.raises(TypeError):
        box - 1


def test_the_same_object_is_the_same_remote(near):
    box = near.name("Box")()
    assert near.name("same")(box) is box
    assert box == box
    assert box != near.name("Box")()
    assert {box: 1}[near.name("same")(box)] == 1


def test_what_is_no_longer_held_is_let_go():
    near, far = ends()
    make = near.name("Box")
    for _ in range(50):
        make(np.ones(3))
    near.name("same")(0)
    assert len(far.exported) < 15
    assert len(far.arrays) < 5


def test_an_object_of_a_tests_own_class_may_be_used(near):
    """As a test cell defines one: its class belongs to __main__."""
    space = {"__name__": "__main__"}
    exec("class Notes:\n    def __init__(self): self.seen = []\n    def step(self, x): self.seen.append(x); return len(self.seen)", space)
    notes = space["Notes"]()
    near.name("step_twice")(notes, 7)
    assert notes.seen == [7, 7]
    with pytest.raises(AttributeError):
        near.name("peek")(notes)


def test_what_passes_through_stays_known(near):
    """A value that nobody here holds, while the other end believes that somebody does: kept for one question, then told."""
    near.name("keep")(np.arange(3.0))
    assert near.name("given_back")() is not None
    assert near.name("given_back")().tolist() == [0, 1, 2]
    box = near.name("Box")
    assert near.name("twice")(lambda x: box(1), 0).first == 1
    assert near.name("twice")(lambda x: np.ones(2) * 3, np.zeros(1)).tolist() == [3, 3]


def test_callbacks_nest(near):
    seen = []

    def double(x):
        seen.append(x)
        return near.name("twice")(lambda y: y + 1, x)

    assert near.name("twice")(double, 10) == 14
    assert seen == [10, 12]
    assert near.name("Box")(1, 2)(lambda x, *, by: x * by, by=3) == [3, 6]


def test_with_and_iteration(near):
    box = near.name("Box")()
    with box as inner:
        assert inner is box
    with box:
        raise ValueError("swallowed")
    with pytest.raises(KeyError), box:
        raise KeyError("not swallowed")
    assert list(box) == ["in", None, "in", "ValueError", "in", "KeyError"]
    assert list(near.name("halves")(10)) == [5, 2, 1]
    assert near.name("Box")(*range(3))(str) == ["0", "1", "2"]


@pytest.mark.parametrize("kind", [ValueError, KeyError, ZeroDivisionError, NotImplementedError, AssertionError, IndexError])
def test_exceptions_cross_by_name(near, kind):
    with pytest.raises(kind) as caught:
        near.name("fail")(kind, "the reason")
    assert type(caught.value) is kind
    assert caught.value.args == ("the reason",)
    assert "raise kind" in caught.value.student_trace or "fail" in caught.value.student_trace


def test_an_exception_of_the_students_own(near):
    with pytest.raises(Exception, match="3 days late") as caught:
        near.name("late")()
    assert type(caught.value).__name__ == "Late"
    with pytest.raises(RuntimeError):
        near.name("fail")(SystemExit, 0)


def test_types_and_functions_that_both_ends_have(near):
    _, _, float32, integer, same = near.name("kinds")()
    assert (float32, integer) == (np.float32, int)
    assert near.name("twice")(np.square, np.float64(3)) == 81
    assert near.name("same")(np.dtype("int8")) == np.dtype("int8")
    assert same is near.name("same")


def test_a_subclass_made_here_of_a_class_there(near):
    class Loud(near.name("Box")):
        tone = 3
        def name(self): return f"LOUD {len(self)} {self.tone}"
    assert Loud(1, 2).name() == "LOUD 2 3"
    assert isinstance(Loud(), near.name("Box"))
    with pytest.raises(CannotCross, match="no super"):
        class Other(near.name("Box")):
            def __len__(self): return super().__len__()


def test_generators_go_as_copies(near):
    rng = np.random.default_rng(4)
    there = near.name("same")(rng)
    assert there.normal() == np.random.default_rng(4).normal()


@pytest.mark.parametrize("answer", [
    {}, {"value": 5}, {"value": ["?"]}, {"value": ["i", "x"]}, {"value": ["i", "1" * 5000]}, {"value": ["a", "n1", None]},
    {"value": ["a", "f1", {"dtype": "O", "shape": [1], "order": "C", "bytes": ""}]},
    {"value": ["a", "f1", {"dtype": "f8", "shape": [1000], "order": "C", "bytes": ""}]},
    {"value": ["a", "f2", {"of": ["a", "f1", {"dtype": "f8", "shape": [1], "order": "C", "bytes": "AAAAAAAAAAA="}], "at": 0, "dtype": "f8",
                           "shape": [9], "strides": [8]}]},
    {"value": ["ref", "builtins", "eval"]}, {"value": ["ref", "os", "system"]}, {"value": ["ref", "numpy", "load"]},
    {"value": ["mine", "x", "1", None]}, {"value": ["mine", 1, "unknown", None]}, {"value": ["yours", 99]},
    {"value": ["dtype", "O"]}, {"value": ["n", "O", "AAAA"]}, {"raise": 7}, {"raise": {"names": [], "text": ""}},
    {"value": None, "changed": {"f9": "AAAA"}}, {"value": json.loads("[" * 90 + "]" * 90)},
])
def test_what_does_not_decode_is_refused_and_never_more(answer):
    message = {"changed": {}, "freed": [], **answer}
    near = Near(lambda asked: copy.deepcopy(message))
    with pytest.raises((CannotCross, KeyError)):
        near.name("x")


@pytest.mark.parametrize("question", [
    {"do": "call", "with": [["ref", "builtins", "type"], ["s", "X"]]}, {"do": "get", "with": [["yours", 1], ["s", "__globals__"]]},
    {"do": "set", "with": [["yours", 1], ["s", "x"], True]}, {"do": "name", "with": [["s", "near"]]},
    {"do": "call", "with": [["yours", 99]]}, {"do": "binary", "with": [["yours", 1], ["s", "add"], True, False]},
    {"do": "iter", "with": [["ref", "builtins", "int"]]}, {"do": 7, "with": []}])
def test_the_far_end_may_call_what_it_was_given_and_nothing_else(question):
    asked, told = [{"words": {}, "changed": {}, "freed": [], **question}, {"value": None, "changed": {}, "freed": []}], []

    def exchange(message):
        told.append(message)
        return copy.deepcopy(asked[len(told) - 1])

    near = Near(exchange)
    near.ask("call", lambda: pytest.fail("called"))
    assert "raise" in told[1]
