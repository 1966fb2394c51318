"""Objects across a wall: one end of a channel on which a program uses the objects of another as if they were its own.

The same file serves both ends. The near end runs an instructor's tests; the far end, in the sandbox, holds the student's
objects. Plain values and arrays go by value, without pickle: exact built-in types, arrays as their bytes. Everything else
stays where it is and is used through a `Remote`: attributes, calls, operators, iteration, `with`. Functions of the near end
cross as callbacks. Raised exceptions cross by name.

Arrays keep their identity: an array that came back is the array that went, a view of it is a view of it, and what one end
wrote into an array the other sees after the next message. So "the input stayed as it was" and "this is a copy" can be
tested as if nothing lay between.

A message is one JSON document. `{"do": verb, ...}` asks and is answered by `{"value": ...}` or `{"raise": ...}`; before its answer
the asked end may ask something itself (a callback). The near end trusts nothing it hears: what does not decode raises
`CannotCross`, comparisons with an object of the far end are never asked there, and the far end may call the functions it was
given and look at the public attributes of objects whose class a test defines, nothing else.

Standard library only, but for NumPy where arrays cross: the far end is mounted into the sandbox as a single file.
"""

import base64
import builtins
import functools
import operator
import sys
import traceback
import weakref

DEPTH = 40                   # of nested containers
TEXT = 20_000                # characters of an exception's message and of its traceback
CALLS_DEEP = 200             # callbacks within callbacks
ARRAY_KINDS = "biufcSU"
PLAIN = (type(None), bool, str)
BINARY = {name: getattr(operator, name) for name in (
    "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and_", "or_", "xor", "lshift", "rshift")}
INPLACE = {name: getattr(operator, name) for name in ("iadd", "isub", "imul", "itruediv", "imatmul", "ipow")}
UNARY: dict = {"neg": operator.neg, "pos": operator.pos, "invert": operator.invert, "abs": abs, "len": len, "bool": bool, "float": float,
         "int": int, "index": operator.index, "repr": repr, "str": str, "iter": iter, "next": next}
OF_BINARY = {"and_": "and", "or_": "or"}                 # the names of the methods, where they differ
SPOKEN = ("call", "getitem", "setitem", "delitem", "contains", "enter", "exit", "array", "len", "bool", "float", "int", "index",
          "iter", "next", "abs", "neg", "pos", "invert")


class CannotCross(TypeError):
    """A value, or a way to use one, that the channel does not carry. The message says which."""


class End:
    """One end of the channel. `ask` sends a message and returns the answer to it; `serve` answers what the other end asks.

    `exchange(message)` of the near end returns the next message of the far end. The far end gives `exchange=None` and uses
    `answer` and `waiting` (see Far).
    """

    def __init__(self, exchange, near):
        self.exchange, self.near, self.letter = exchange, near, "n" if near else "f"
        self.exported, self.export_ids, self.count = {}, {}, 0            # objects of ours that the other end holds
        self.remotes: weakref.WeakValueDictionary = weakref.WeakValueDictionary()    # objects of theirs that we hold
        self.classes = {}
        self.described = set()                                            # classes of ours that they know
        self.arrays = {}                                                  # key -> (our array or a weak reference to it, synchronised bytes)
        self.array_ids = {}
        self.freed, self.depth = [], 0
        self.alive: list = []                                             # what the other end counts on until the next question
        self.written = False                                              # the other end changed an array that was made here

    # ---- asking

    def ask(self, verb, *operands, **words):
        """Use an object of the other end: returns its value, raises what it raised."""
        if self.depth > CALLS_DEEP:
            raise RecursionError("calls across the sandbox are nested too deeply")
        if self.depth == 0:
            self.alive.clear()
        message = self.packed({"do": verb, "with": [self.encode(each) for each in operands],
                               "words": {name: self.encode(each) for name, each in words.items()}})
        self.depth += 1
        try:
            answer = self.unpacked(self.exchange(message))
            while "do" in answer:
                answer = self.unpacked(self.exchange(self.served(answer)))
        finally:
            self.depth -= 1
        if "raise" in answer:
            raise self.raised(answer["raise"])
        return self.decode(answer["value"])

    def served(self, question):
        """The answer to a question of the other end, as a message."""
        try:
            operands = [self.decode(each) for each in question["with"]]
            words = {str(name): self.decode(each) for name, each in question["words"].items()}
            value = self.encode(self.perform(question["do"], operands, words))
        except BaseException as error:                   # SystemExit of a student is an answer too
            return self.packed({"raise": self.telling(error)})
        return self.packed({"value": value})

    def perform(self, verb, operands, words):
        """Carry out what the other end asks. The near end lets its functions be called, and nothing else."""
        if self.near:
            if verb == "call" and callable(operands[0]) and id(operands[0]) in self.export_ids:
                return operands[0](*operands[1:], **words)
            if verb in ("iter", "next") and id(operands[0]) in self.export_ids:
                return UNARY[verb](operands[0])
            if verb == "get" and operands[1] == "__name__" and id(operands[0]) in self.export_ids:
                return str(operands[0].__name__)
            if verb == "get" and shown(operands[0], operands[1]) and id(operands[0]) in self.export_ids:
                return getattr(operands[0], operands[1])
            if verb == "get":
                raise AttributeError(f"{str(operands[1])[:100]} of an object of the test")
            raise CannotCross(f"the sandbox may not ask for {str(verb)[:20]!r}")
        return VERBS[verb](self, operands, words)

    # ---- messages: arrays that changed, and what is no longer needed, travel along

    def packed(self, message):
        self.sweep()
        changed = {}
        for key, (held, bytes_then) in list(self.arrays.items()):
            array = held() if isinstance(held, weakref.ref) else held
            if array is not None and bytes_then is not None and (now := array.tobytes()) != bytes_then:
                changed[key] = base64.b64encode(now).decode()
                self.arrays[key] = held, now
        message["changed"], message["freed"], self.freed = changed, self.freed, []
        return message

    def unpacked(self, message):
        if self.depth == 0:
            self.alive.clear()
        try:
            for key in message["freed"]:
                self.forget(key)
            for key, text in message["changed"].items():
                held, bytes_then = self.arrays[key]
                array = held() if isinstance(held, weakref.ref) else held
                new = base64.b64decode(text)
                if array is not None and bytes_then is not None and len(new) == len(bytes_then) and array.flags.writeable:
                    array[...] = _numpy().frombuffer(new, array.dtype).reshape(array.shape)
                    self.arrays[key] = held, new
                    self.written |= str(key).startswith(self.letter)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CannotCross(f"not a message of this channel: {error}") from None
        return message

    def sweep(self):
        """Tell the other end which of its arrays nobody here holds any more."""
        for key, (held, _) in list(self.arrays.items()):
            if isinstance(held, weakref.ref) and held() is None:
                del self.arrays[key]
                self.freed.append(key)

    def forget(self, key):
        if isinstance(key, str):
            if key in self.arrays:
                array = self.arrays.pop(key)[0]
                self.array_ids.pop(id(array), None)
        else:
            self.export_ids.pop(id(self.exported.pop(key, None)), None)

    # ---- values out

    def encode(self, value, depth=0):
        kind = type(value)
        if depth > DEPTH:
            raise CannotCross("a value is nested too deeply")
        if kind in PLAIN:
            return value if kind is not str else ["s", value.encode("utf-8", "surrogatepass").decode("utf-8", "replace")]
        if kind is int:
            return ["i", str(value)] if abs(value) < 10**4000 else self.handle(value)
        if kind is float:
            return ["f", value.hex()]
        if kind is complex:
            return ["c", value.real.hex(), value.imag.hex()]
        if kind in (bytes, bytearray):
            return ["b", kind.__name__, base64.b64encode(value).decode()]
        if kind in (list, tuple, set, frozenset):
            return ["l", kind.__name__, [self.encode(each, depth + 1) for each in value]]
        if kind is dict:
            return ["d", [[self.encode(k, depth + 1), self.encode(v, depth + 1)] for k, v in value.items()]]
        if kind in (slice, range):
            return ["r", kind.__name__, [self.encode(each, depth + 1) for each in (value.start, value.stop, value.step)]]
        if value is Ellipsis or value is NotImplemented:
            return ["o", "Ellipsis" if value is Ellipsis else "NotImplemented"]
        if isinstance(value, Remote):
            own = object.__getattribute__(value, "_remote")
            if own[0] is self:
                self.alive.append(value)                 # or its end would be told in the message that names it
                return ["yours", own[1]]
            raise CannotCross("an object of another sandbox")
        numpy = sys.modules.get("numpy")
        if numpy is not None:
            if kind is numpy.ndarray and value.dtype.kind in ARRAY_KINDS and value.dtype.names is None:
                return self.encode_array(value)
            if isinstance(value, numpy.generic) and kind.__module__ == "numpy" and value.dtype.kind in ARRAY_KINDS:
                return ["n", value.dtype.str, base64.b64encode(value.tobytes()).decode()]
            if isinstance(value, numpy.dtype) and value.kind in ARRAY_KINDS and value.names is None:
                return ["dtype", value.str]
            if kind is numpy.random.Generator and type(value.bit_generator) is numpy.random.PCG64:
                state = value.bit_generator.state
                return ["rng", [str(state["state"]["state"]), str(state["state"]["inc"]), state["has_uint32"], state["uinteger"]]]
        if (name := self.named(value)) is not None:
            return ["ref", *name]
        return self.handle(value)

    def named(self, value):
        """("numpy", "exp") for what both ends have under that name: types and functions of Python and NumPy."""
        name = getattr(value, "__name__", None)
        if not isinstance(name, str):
            return None
        if getattr(builtins, name, None) is value:
            return "builtins", name
        numpy = sys.modules.get("numpy")
        if numpy is not None and value is numpy:
            return "numpy", ""
        if numpy is not None and getattr(numpy, name, None) is value:
            return "numpy", name
        if getattr(operator, name, None) is value:
            return "operator", name
        return None

    def handle(self, value):
        if id(value) not in self.export_ids:
            self.count += 1
            self.exported[self.count], self.export_ids[id(value)] = value, self.count
        number = self.export_ids[id(value)]
        cls = type(value)
        about = None
        if id(cls) not in self.described:
            self.described.add(id(cls))
            self.exported[f"class {id(cls)}"] = cls      # keeps its id from being used again
            about = {"name": str(cls.__name__)[:200], "speaks": [] if self.near else spoken(cls)}
        return ["mine", number, str(id(cls)), about]

    def encode_array(self, array):
        numpy = _numpy()
        key = self.array_ids.get(id(array))
        if key is not None and self.holds(key, array):
            return ["a", key, None]
        root = array
        while type(root.base) is numpy.ndarray:
            root = root.base
        contiguous = root.flags.c_contiguous or root.flags.f_contiguous
        small = root.nbytes <= 4 * array.nbytes + 2**16 and contiguous and root.dtype.kind in ARRAY_KINDS
        key = self.register(array, root is array or not small)
        if root is not array and small:
            place = array.__array_interface__["data"][0] - root.__array_interface__["data"][0]
            return ["a", key, {"of": self.encode_array(root), "at": place, "dtype": array.dtype.str, "shape": list(array.shape),
                               "strides": list(array.strides)}]
        order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
        return ["a", key, {"dtype": array.dtype.str, "shape": list(array.shape), "order": order,
                           "bytes": base64.b64encode(array.tobytes()).decode()}]

    def holds(self, key, array):
        held = self.arrays[key][0] if key in self.arrays else None
        return (held() if isinstance(held, weakref.ref) else held) is array

    def register(self, array, whole, key=None):
        """`whole`: its bytes are compared and sent; those of a view travel with the array it looks into."""
        if key is None:
            self.count += 1
            key = f"{self.letter}{self.count}"
        held = weakref.ref(array) if self.near else array
        self.alive.append(array)
        self.arrays[key] = held, array.tobytes() if whole else None
        self.array_ids[id(array)] = key
        return key

    # ---- values in

    def decode(self, value, depth=0):
        try:
            return self._decode(value, depth)
        except CannotCross:
            raise
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, MemoryError) as error:
            raise CannotCross(f"not a value of this channel: {error}") from None

    def _decode(self, value, depth):
        if value is None or value is True or value is False:
            return value
        if depth > DEPTH + 2:
            raise CannotCross("a value is nested too deeply")
        kind, rest = value[0], value[1:]
        if kind == "s":
            return str(rest[0])
        if kind == "i":
            if len(rest[0]) > 4002:
                raise CannotCross("a number with too many digits")
            return int(rest[0])
        if kind == "f":
            return float.fromhex(rest[0])
        if kind == "c":
            return complex(float.fromhex(rest[0]), float.fromhex(rest[1]))
        if kind == "b":
            return {"bytes": bytes, "bytearray": bytearray}[rest[0]](base64.b64decode(rest[1]))
        if kind == "l":
            return {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}[rest[0]](self._decode(v, depth + 1) for v in rest[1])
        if kind == "d":
            return {self._decode(k, depth + 1): self._decode(v, depth + 1) for k, v in rest[0]}
        if kind == "r":
            return {"slice": slice, "range": range}[rest[0]](*[self._decode(v, depth + 1) for v in rest[1]])
        if kind == "o":
            return {"Ellipsis": Ellipsis, "NotImplemented": NotImplemented}[rest[0]]
        if kind == "n":
            return _numpy().frombuffer(base64.b64decode(rest[1]), self.dtype(rest[0]))[0]
        if kind == "dtype":
            return self.dtype(rest[0])
        if kind == "rng":
            return generator(*rest[0])
        if kind == "a":
            return self.decode_array(*rest)
        if kind == "ref":
            return self.resolve(*rest)
        if kind == "yours":
            return self.exported[int(rest[0])]
        if kind == "mine":
            return self.remote(*rest)
        raise CannotCross(f"unknown kind of value {str(kind)[:20]!r}")

    @staticmethod
    def dtype(text):
        dtype = _numpy().dtype(str(text))
        if dtype.kind not in ARRAY_KINDS or dtype.names is not None:
            raise CannotCross(f"an array of {dtype}")
        return dtype

    def resolve(self, module, name):
        """What both ends know by name. The near end takes nothing from the far one that acts: types, and NumPy's ufuncs."""
        if module == "numpy" and name == "":
            return _numpy()
        found = getattr({"builtins": builtins, "operator": operator, "numpy": None}[module] or _numpy(), name)
        if self.near and not (isinstance(found, type) or type(found).__name__ == "ufunc"):
            raise CannotCross(f"the function {module}.{name} as a result")
        return found

    def decode_array(self, key, content):
        numpy = _numpy()
        if content is None:
            held = self.arrays[key][0]
            array = held() if isinstance(held, weakref.ref) else held
            if array is None:
                raise CannotCross("an array that is gone")
            return array
        dtype, shape = self.dtype(content["dtype"]), tuple(int(n) for n in content["shape"])
        if "of" in content:
            root = self._decode(content["of"], DEPTH)
            flat = root if root.flags.c_contiguous else root.T
            array = numpy.ndarray(shape, dtype, buffer=flat, offset=int(content["at"]), strides=tuple(int(n) for n in content["strides"]))
            self.register(array, False, key)
            return array
        array = numpy.empty(shape, dtype, order="F" if content["order"] == "F" else "C")
        array[...] = numpy.frombuffer(base64.b64decode(content["bytes"]), dtype).reshape(shape)
        self.register(array, True, key)
        return array

    def remote(self, number, class_id, about):
        number = int(number)
        if number in self.remotes:
            return self.remotes[number]
        if about is not None:
            self.classes[class_id] = remote_class(str(about["name"]), [str(word) for word in about["speaks"]])
        self.freed[:] = [each for each in self.freed if each != number]      # it was gone here, and comes again
        made = object.__new__(self.classes[class_id])
        object.__setattr__(made, "_remote", (self, number))
        self.remotes[number] = made
        weakref.finalize(made, self.let_go, number)
        return made

    def let_go(self, number):
        if number not in self.remotes:
            self.freed.append(number)

    # ---- exceptions

    def telling(self, error):
        names = [cls.__name__ for cls in type(error).__mro__ if cls not in (object,)]
        try:
            text, arguments = str(error), [self.encode(each) for each in error.args if type(each) in (*PLAIN, int, float)]
        except BaseException as worse:
            text, arguments = f"an exception whose message cannot be shown ({type(worse).__name__})", []
        lines = [] if self.near else traceback.format_exception(None, error, error.__traceback__, limit=-20)
        shown = "".join(line for line in lines if __file__ not in line)
        return {"names": names[:20], "text": text[:TEXT], "arguments": arguments[:10], "trace": shown[-TEXT:]}

    def raised(self, told):
        try:
            names, text = [str(name)[:100] for name in told["names"]], str(told["text"])[:TEXT]
            arguments, trace = [self.decode(each) for each in told["arguments"]][:10], str(told["trace"])[-TEXT:]
        except (KeyError, TypeError, ValueError) as error:
            raise CannotCross(f"not an exception of this channel: {error}") from None
        kind, telling = exception_class(tuple(names)), exception_class((*names[:1], *names))
        try:
            made = kind(*(arguments or ([text] if text else [])))
        except TypeError:                                # UnicodeDecodeError and the like want more than a text
            made = exception_class((*names[:1], "ValueError"))(text)
        if str(made) != text:
            made = telling(text)
            made.text = text
        made.student_trace = trace
        return made


def shown(thing, name):
    """May the far end see this attribute? The public ones of objects whose class a test cell defines: a scheduler that takes notes."""
    return isinstance(name, str) and not name.startswith("_") and type(thing).__module__ == "__main__" and hasattr(type(thing), "__dict__")


def _numpy():
    import numpy
    return numpy


def generator(state, increment, has_uint32, uinteger):
    """NumPy's generator in that state. It goes as a copy: what the other end draws is not drawn here."""
    made = _numpy().random.default_rng(0)
    made.bit_generator.state = {"bit_generator": "PCG64", "state": {"state": int(state), "inc": int(increment)},
                                "has_uint32": int(has_uint32), "uinteger": int(uinteger)}
    return made


@functools.lru_cache(maxsize=500)
def exception_class(names):
    """The built-in exception of the first name, or one of that name derived from the nearest built-in one."""
    for name in names:
        base = getattr(builtins, name, None)
        if isinstance(base, type) and issubclass(base, Exception):
            if name == names[0] and names.count(name) == 1:
                return base
            own = names[0] if names[0].isidentifier() else "Error"
            return type(own, (base,), {"__str__": lambda error: getattr(error, "text", None) or Exception.__str__(error),
                                       "__module__": "builtins"})
    return type(names[0] if names and names[0].isidentifier() else "Error", (RuntimeError,), {"__module__": "builtins"})


# ---- what stands for an object of the other end

class Remote:
    """Stands for an object of the other end. Subclasses (one per class there) add the special methods that class has."""

    __slots__ = ("__weakref__", "_remote")

    def __new__(cls, name, bases, body):
        """Python calls this for `class Twice(Layer)` where `Layer` is a class over there: there the subclass is made, its methods stay."""
        left_out = ("__module__", "__qualname__", "__firstlineno__", "__static_attributes__")
        own = {key: value for key, value in body.items() if key not in left_out}
        if len(bases) != 1 or "__classcell__" in own:
            raise CannotCross(f"class {name}: a subclass of the student's class may have one base and no super()")
        methods = [key for key, value in own.items() if type(value).__name__ == "function"]
        return _ask(bases[0], "subclass", name, own, methods)

    def __init__(self, *_):
        pass

    def __getattr__(self, name):
        if name.startswith("__array_") or name in ("__mro_entries__", "__set_name__", "__wrapped__", "__deepcopy__", "__reduce_ex__"):
            raise AttributeError(name)
        return _ask(self, "get", name)

    def __setattr__(self, name, value):
        _ask(self, "set", name, value)

    def __delattr__(self, name):
        _ask(self, "del", name)

    def __instancecheck__(self, instance):
        return isinstance(instance, Remote) and _truth(_ask(self, "isinstance", instance))

    def __subclasscheck__(self, other):
        return isinstance(other, Remote) and _truth(_ask(self, "issubclass", other))

    def __repr__(self):
        return _kind(_ask(self, "repr"), str)

    def __str__(self):
        return _kind(_ask(self, "str"), str)

    def __format__(self, spec):
        return format(str(self), spec) if not spec else _kind(_ask(self, "format", spec), str)

    def __dir__(self):
        return _kind(_ask(self, "dir"), list)

    def __eq__(self, other):
        """The same object. What an object of the far end says about its equality with a value of ours is worth nothing."""
        return self is other

    __hash__ = object.__hash__

    def _refuse(self, other):
        raise CannotCross("compare numbers, not objects of the student: take .item(), .data or an attribute first")

    __lt__ = __le__ = __gt__ = __ge__ = _refuse


def _ask(remote, verb, *operands, **words):
    end, _ = object.__getattribute__(remote, "_remote")
    return end.ask(verb, remote, *operands, **words)


def _kind(value, kind):
    if type(value) is not kind:
        raise CannotCross(f"expected {kind.__name__}, the object answered with {type(value).__name__}")
    return value


def _truth(value):
    return _kind(value, bool)


def _binary(name):
    return (lambda self, other: _ask(self, "binary", name, other, False)), (lambda self, other: _ask(self, "binary", name, other, True))


def remote_class(name, speaks):
    """A subclass of Remote with the special methods of a class over there."""
    methods = {
        "call": ("__call__", lambda self, *operands, **words: _ask(self, "call", *operands, **words)),
        "getitem": ("__getitem__", lambda self, index: _ask(self, "getitem", index)),
        "setitem": ("__setitem__", lambda self, index, value: _ask(self, "setitem", index, value)),
        "delitem": ("__delitem__", lambda self, index: _ask(self, "delitem", index)),
        "contains": ("__contains__", lambda self, item: _truth(_ask(self, "contains", item))),
        "enter": ("__enter__", lambda self: _ask(self, "enter")),
        "exit": ("__exit__", lambda self, kind, error, trace: _truth(_ask(self, "exit", None if kind is None else kind.__name__,
                                                                          None if error is None else str(error)))),
        "len": ("__len__", lambda self: _kind(_ask(self, "len"), int)),
        "bool": ("__bool__", lambda self: _truth(_ask(self, "bool"))),
        "float": ("__float__", lambda self: _kind(_ask(self, "float"), float)),
        "int": ("__int__", lambda self: _kind(_ask(self, "int"), int)),
        "index": ("__index__", lambda self: _kind(_ask(self, "index"), int)),
        "iter": ("__iter__", lambda self: _ask(self, "iter")),
        "next": ("__next__", lambda self: _ask(self, "next")),
        "abs": ("__abs__", lambda self: _ask(self, "abs")),
        "neg": ("__neg__", lambda self: _ask(self, "neg")),
        "pos": ("__pos__", lambda self: _ask(self, "pos")),
        "invert": ("__invert__", lambda self: _ask(self, "invert")),
        "eq": ("__eq__", lambda self, other: self is other or (isinstance(other, Remote) and _truth(_ask(self, "eq", other)))),
        "array": ("__array__", lambda self, dtype=None, copy=None: _array(_ask(self, "array"), dtype, copy)),
    }
    body = {"__slots__": (), "__hash__": object.__hash__}
    for word in speaks:
        if word in methods:
            attribute, method = methods[word]
            body[attribute] = method
        elif word in BINARY or word in INPLACE:
            forward, backward = _binary(word)
            plain = OF_BINARY.get(word, word)
            body[f"__{plain}__"] = forward
            if word in BINARY:
                body[f"__r{plain}__"] = backward
        elif word == "no ufunc":
            body["__array_ufunc__"] = None
    return type(name if name.isidentifier() else "Remote", (Remote,), body)


def _array(value, dtype, copy):
    numpy = _numpy()
    if type(value) is not numpy.ndarray:
        raise CannotCross(f"expected an array, the object answered with {type(value).__name__}")
    return numpy.array(value, dtype=dtype, copy=copy)


def spoken(cls):
    """The special methods that objects of this class answer to, by the names of this channel."""
    words = [word for word in SPOKEN if getattr(cls, f"__{word}__", None) is not None]
    for word in (*BINARY, *INPLACE):
        plain = OF_BINARY.get(word, word)
        if getattr(cls, f"__{plain}__", None) is not None or (word in BINARY and getattr(cls, f"__r{plain}__", None) is not None):
            words.append(word)
    if getattr(cls, "__eq__", None) not in (None, object.__eq__, type.__eq__):
        words.append("eq")
    if getattr(cls, "__array_ufunc__", 0) is None:
        words.append("no ufunc")
    return words


# ---- what the far end does for the near one

def _exit(end, operands, words):
    context, kind, text = operands
    error = None if kind is None else exception_class((kind,))(text)
    return bool(type(context).__exit__(context, None if error is None else type(error), error, None))


def _binary_there(end, operands, words):
    left, name, right, turned = operands
    function = INPLACE.get(name) or BINARY[name]
    return function(right, left) if turned else function(left, right)


def _subclass(end, operands, words):
    base, name, body, methods = operands

    def method(function):
        return lambda self, *operands, **words: function(self, *operands, **words)

    return type(base)(name, (base,), {key: method(value) if key in methods else value for key, value in body.items()})


def _alone(function):
    return lambda end, operands, words: function(operands[0])


VERBS = {
    "subclass": _subclass,
    "call": lambda end, o, w: o[0](*o[1:], **w),
    "get": lambda end, o, w: getattr(o[0], o[1]),
    "set": lambda end, o, w: setattr(o[0], o[1], o[2]),
    "del": lambda end, o, w: delattr(o[0], o[1]),
    "getitem": lambda end, o, w: o[0][o[1]],
    "setitem": lambda end, o, w: operator.setitem(*o),
    "delitem": lambda end, o, w: operator.delitem(*o),
    "contains": lambda end, o, w: o[1] in o[0],
    "isinstance": lambda end, o, w: isinstance(o[1], o[0]),
    "issubclass": lambda end, o, w: issubclass(o[1], o[0]),
    "format": lambda end, o, w: format(o[0], o[1]),
    "dir": lambda end, o, w: [str(name) for name in dir(o[0])],
    "enter": lambda end, o, w: type(o[0]).__enter__(o[0]),
    "exit": _exit,
    "eq": lambda end, o, w: bool(o[0] == o[1]),
    "array": lambda end, o, w: _numpy().asarray(o[0]),
    "binary": _binary_there,
    "name": lambda end, o, w: end.names[o[0]],
    **{verb: _alone(function) for verb, function in UNARY.items()},
}


class Far(End):
    """The end in the sandbox: `names` are the student's globals, `exchange` sends a message and returns the next one."""

    def __init__(self, exchange, names):
        super().__init__(exchange, near=False)
        self.names = names

    def unpacked(self, message):
        if message.get("first"):                         # in the place of a near end that is gone, and has heard of nothing yet
            for known in (self.exported, self.export_ids, self.described, self.arrays, self.array_ids):
                known.clear()
        return super().unpacked(message)

    def remote(self, number, class_id, about):
        """An object of the near end: it can be called, iterated over and handed back, no more."""
        if about is not None:
            self.classes[class_id] = remote_class(str(about["name"]), ["call", "iter", "next"])
            about = None
        return super().remote(number, class_id, about)


class Near(End):
    """The end of the tests. `exchange(message)` must return the far end's next message."""

    def __init__(self, exchange):
        super().__init__(exchange, near=True)
        self.first = True

    def packed(self, message):
        if self.first:
            message["first"], self.first = True, False
        return super().packed(message)

    def name(self, name):
        """The value of one of the student's global names. Raises KeyError when there is none."""
        return self.ask("name", name)
