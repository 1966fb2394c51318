"""Can I create and manipulate ML building blocks? A tensor: its numbers, shapes, arithmetic, memory and error messages."""

from itertools import product

import numpy as np

from course.checkpoints.support import agree, answer, fast, refused, values
from tinytorch.core.tensor import (
    Tensor,
    add,
    as_float32,
    concat,
    div,
    exp,
    held_bytes,
    log,
    matmul_shape,
    mul,
    op,
    power,
    reshape_shape,
    sqrt,
    squared_distances,
    sub,
)

ARITHMETIC = {"+": (np.add, lambda a, b: a + b, add), "-": (np.subtract, lambda a, b: a - b, sub),
              "*": (np.multiply, lambda a, b: a * b, mul), "/": (np.divide, lambda a, b: a / b, div)}
REDUCTIONS = {"sum": np.sum, "mean": np.mean, "max": np.max}
SHAPES = [((2, 3, 4), (2, 3, 4)), ((2, 3, 4), (4,)), ((3, 1), (1, 4)), ((5, 1, 3), (4, 3)), ((), (2, 3)), ((0, 3), (1, 3))]


def draw(shape, seed=0):
    """Float32 numbers away from 0, of both signs."""
    rng = np.random.default_rng(seed)
    return (rng.uniform(0.5, 2, size=shape) * rng.choice([-1, 1], size=shape)).astype(np.float32)


def can_make_tensors_from_numbers_lists_and_arrays():
    for data in (3, 2.5, True, [], [1, 2, 3], [[1, 2], [3, 4.5]], [[True], [False]], np.arange(6).reshape(1, 2, 3),
                 draw((2, 3)).astype(np.float64)):
        t, want = answer(Tensor, data), np.asarray(data)
        agree(t, want, f"Tensor({data!r})")
        for name in ("shape", "ndim", "size"):
            got = getattr(t, name)
            assert got == getattr(want, name), f"Tensor({data!r}).{name} should be {getattr(want, name)}, it is {got}"


def can_keep_everything_in_float32():
    t = Tensor(draw((2, 3)))
    results = {"Tensor([1, 2])": Tensor([1, 2]), "t + 1.5": t + 1.5, "2 * t": 2 * t, "t / np.float64(3)": t / np.float64(3),
               "np.ones(3) - t": np.ones(3) - t, "t @ np.ones((3, 2))": t @ np.ones((3, 2)), "t ** 2": t ** 2, "t.sum()": t.sum(),
               "t.mean(axis=0)": t.mean(axis=0), "t.max()": t.max(), "t[0]": t[0], "exp(t)": exp(t), "concat(t, t)": concat(t, t)}
    for name, result in results.items():
        assert isinstance(result, Tensor), f"{name} should be a Tensor, it is a {type(result).__name__}"
        assert result.data.dtype == np.float32, f"{name} should hold float32, it holds {result.data.dtype}"
        assert result.dtype == np.float32, f"{name}.dtype should be float32, it is {result.dtype}"


def can_refuse_what_is_not_numbers():
    for data in (["7"], [1, None], "seven", [1, 2j]):
        refused(TypeError, Tensor, data)
    said = refused(ValueError, Tensor, [[1, 2], [3]])
    assert "rows of equal length" in said, f"the ValueError of Tensor([[1, 2], [3]]) should say 'rows of equal length', it says {said!r}"
    said = refused(TypeError, as_float32, [1, None])
    assert "object" in said, f"the TypeError of as_float32([1, None]) should name the dtype object, it says {said!r}"
    refused(TypeError, Tensor, [Tensor([1.0], requires_grad=True), 2])


def can_add_subtract_multiply_and_divide():
    for (sign, (plain, ours, function)), (one, other) in product(ARITHMETIC.items(), SHAPES):
        a, b = draw(one, 1), draw(other, 2)
        what = f"{one} {sign} {other}"
        agree(ours(Tensor(a), Tensor(b)), plain(a, b), what)
        agree(function(Tensor(a), Tensor(b)), plain(a, b), f"{function.__name__}() of {one} and {other}")


def can_calculate_with_numbers_lists_and_arrays_on_either_side():
    a = draw((2, 3), 3)
    for sign, (plain, ours, _) in ARITHMETIC.items():
        for other in (3, -0.5, [1.0, 2.0, 4.0], draw((2, 3), 4), np.float64(2)):
            agree(ours(Tensor(a), other), plain(a, np.float32(other)), f"tensor {sign} {type(other).__name__}")
            agree(ours(other, Tensor(a)), plain(np.float32(other), a), f"{type(other).__name__} {sign} tensor")
    agree(draw((4, 2), 5) @ Tensor(a), draw((4, 2), 5) @ a, "array @ tensor")
    agree([[1.0, 2.0]] @ Tensor(a), np.float32([[1, 2]]) @ a, "list @ tensor")


def can_negate_and_raise_to_powers():
    a = abs(draw((2, 3), 6))
    agree(-Tensor(a), -a, "-t")
    for exponent in (2, 3, 0.5, -1, 0):
        agree(Tensor(a) ** exponent, a.astype(np.float64) ** exponent, f"t ** {exponent}")
    agree(2 ** Tensor(a), 2 ** a.astype(np.float64), "2 ** t")
    agree(power(Tensor(a), Tensor([1, 2, 3])), a.astype(np.float64) ** [1, 2, 3], "power of two tensors")


def can_take_exponentials_logarithms_and_roots():
    a = abs(draw((2, 3), 7))
    for function, plain in ((exp, np.exp), (log, np.log), (sqrt, np.sqrt)):
        agree(function(Tensor(a)), plain(a.astype(np.float64)), f"{function.__name__}(t)")


def can_multiply_matrices():
    cases = [((2, 3), (3, 4)), ((1, 7), (7, 1)), ((3,), (3, 4)), ((2, 3), (3,)), ((3,), (3,)), ((5, 2, 3), (3, 4)),
             ((5, 1, 2, 3), (6, 3, 4))]
    for seed, (one, other) in enumerate(cases):
        a, b = draw(one, seed), draw(other, seed + 100)
        agree(Tensor(a) @ Tensor(b), _product(a, b), f"{one} @ {other}", atol=1e-4)


def _product(a, b):
    """Rows times columns in float64, written out: independent of NumPy's matmul."""
    left = a[None, :] if a.ndim == 1 else a
    right = b[:, None] if b.ndim == 1 else b
    out = (left[..., :, :, None].astype(np.float64) * right[..., None, :, :]).sum(axis=-2)
    out = out[..., 0] if b.ndim == 1 else out
    return out if a.ndim > 1 else out[..., 0] if b.ndim == 1 else out[..., 0, :]


def can_predict_the_shape_of_a_product():
    shapes = [(), (1,), (3,), (4,), (0,), (2, 3), (3, 1), (1, 4), (5, 1, 3), (2, 3, 4), (6, 4, 3), (1, 1, 1)]
    for a, b in product(shapes, shapes):
        try:
            want = np.matmul(np.empty(a), np.empty(b)).shape
        except ValueError:
            said = refused(ValueError, matmul_shape, a, b)
            named = _named(said, a, b) or len(a) > 2 or len(b) > 2
            assert named, f"the ValueError of matmul_shape({a}, {b}) should name both shapes, it says {said!r}"
            continue
        got = answer(matmul_shape, a, b)
        assert got == want, f"matmul_shape({a}, {b}) should be {want}, it is {got}"


def can_predict_the_shape_after_a_reshape():
    shapes = [(24,), (4, 6), (2, 3, 4), (-1,), (6, -1), (-1, 3, 2), (1, 24, 1), (5, -1), (7,), (-1, -1), (0,), (0, -1), ()]
    for old, shape in product([(24,), (2, 3, 4), (2, 12), (0, 3), (1,)], shapes):
        try:
            want = np.empty(old).reshape(shape).shape
        except ValueError:
            said = refused(ValueError, reshape_shape, old, shape)
            assert _named(said, old, shape), f"the ValueError of reshape_shape({old}, {shape}) should name both shapes, it says {said!r}"
            continue
        got = answer(reshape_shape, old, shape)
        assert got == want, f"reshape_shape({old}, {shape}) should be {want}, it is {got}"


def _named(message, *shapes):
    return all(str(shape) in message for shape in shapes)


def can_say_which_shapes_do_not_fit():
    a, b = Tensor(draw((2, 3))), Tensor(draw((4, 5)))
    for sign, ours in {**{sign: entry[1] for sign, entry in ARITHMETIC.items()}, "@": lambda a, b: a @ b}.items():
        said = refused(ValueError, ours, a, b, what=f"shape (2, 3) {sign} shape (4, 5)")
        assert _named(said, (2, 3), (4, 5)), f"the ValueError of shape (2, 3) {sign} shape (4, 5) should name both, it says {said!r}"
    for what, function, inputs in (("Tensor of shape (2, 3).reshape(5)", a.reshape, [5]),
                                   ("concat of shapes (2, 3) and (4, 5) along axis 0", concat, [a, b])):
        said = refused(ValueError, function, *inputs, what=what)
        assert _named(said, (2, 3)), f"the ValueError of {what} should name (2, 3), it says {said!r}"


def can_reduce_along_any_axis():
    a = draw((2, 3, 4), 8)
    for (name, plain), axis, keepdims in product(REDUCTIONS.items(), (None, 0, 1, -1, (0, 2)), (False, True)):
        got = getattr(Tensor(a), name)(axis=axis, keepdims=keepdims)
        agree(got, plain(a.astype(np.float64), axis=axis, keepdims=keepdims), f"{name}(axis={axis}, keepdims={keepdims})")


def can_reshape_and_transpose():
    a = draw((2, 3, 4), 9)
    for shape in ((6, 4), (4, 3, 2), (24,), (2, -1), (1, 24, 1)):
        agree(Tensor(a).reshape(*shape), a.reshape(shape), f"reshape{shape}")
    agree(Tensor(a).transpose(), a.transpose(), "transpose()")
    agree(Tensor(a).transpose(1, 0, 2), a.transpose(1, 0, 2), "transpose(1, 0, 2)")
    agree(Tensor(a[0]).T, a[0].T, "t.T")


def can_pick_parts_and_numbers():
    a = draw((3, 4), 10)
    t = Tensor(a)
    for index, what in ((1, "t[1]"), ((2, -1), "t[2, -1]"), (slice(1, 3), "t[1:3]"), ((slice(None), 1), "t[:, 1]"), ([2, 0], "t[[2, 0]]")):
        agree(t[index], a[index], what)
    assert len(t) == len(list(t)) == 3, f"a tensor of shape (3, 4) has 3 rows, len says {len(t)}, a loop finds {len(list(t))}"
    assert t[1, 2].item() == float(a[1, 2]) == float(t[1, 2]), f"t[1, 2].item() should be {a[1, 2]}, it is {t[1, 2].item()}"
    said = refused(ValueError, t.item, what="item() of a tensor of shape (3, 4)")
    assert "(3, 4)" in said, f"the ValueError of item() should name the shape (3, 4), it says {said!r}"
    assert "7" in repr(Tensor([7])), f"repr of a small tensor should show its numbers: {Tensor([7])!r}"
    assert "(3000, 2)" in repr(Tensor(np.zeros((3000, 2)))), "repr of a large tensor should show its shape"


def can_tell_views_from_copies():
    memory = np.arange(24, dtype=np.float32)
    x = Tensor(memory).reshape(4, 6)
    looks = {"Tensor(float32 array)": Tensor(memory), "reshape": x, "T": x.T, "t[1]": x[1], "t[:, 2]": x[:, 2], "numpy()": x.numpy()}
    for name, y in looks.items():
        assert np.shares_memory(values(y), memory), f"{name} should look at the same memory, it is a copy"
    own = {"t + 0": x + 0, "-t": -x, "t.T.reshape(24)": x.T.reshape(24), "t[[0, 1]]": x[[0, 1]], "Tensor(integers)": Tensor(np.arange(3))}
    for name, y in own.items():
        assert not np.shares_memory(y.data, memory), f"{name} should have memory of its own, it looks at the original"
    memory[7] = 100
    assert x[1, 1].item() == 100 == x.T[1, 1].item(), "what is written into the array should appear in its views"


def can_say_how_much_memory_an_array_holds():
    table = np.zeros((100, 64), np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(table, (2, 2))
    for array, want, what in ((table, 25600, "an owner"), (table[3], 25600, "a row"), (table.T[1:][:, 2], 25600, "a view of a view"),
                              (table[3].copy(), 256, "a copy of a row"), (windows, 25600, "a window")):
        got = answer(held_bytes, array)
        assert got == want, f"{what} keeps {want} bytes alive, held_bytes says {got}"


def can_leave_the_inputs_as_they_were():
    a, b = draw((3, 3), 11), draw((3, 3), 12)
    x, y, first, second = Tensor(a), Tensor(b), a.copy(), b.copy()
    for use in (lambda: x + y, lambda: x - y, lambda: x * y, lambda: x / y, lambda: x @ y, lambda: -x, lambda: x ** 2,
                lambda: x.sum(axis=0), lambda: squared_distances(x, y), lambda: concat(x, y), lambda: exp(x)):
        use()
        assert np.array_equal([a, b], [first, second]), "an operation changed the numbers that it was given"


def can_lift_a_function_to_tensors():
    @op
    def shifted(x, *, by):
        return x + by
    agree(shifted([1, 2], by=10), [11, 12], "a function lifted by @op, called with a list")
    assert isinstance(shifted(Tensor([1]), by=1), Tensor), "a function lifted by @op should return a tensor"
    assert shifted.__name__ == "shifted", f"@op should keep the function's name, it is now {shifted.__name__}"
    result = shifted(Tensor([1.0], requires_grad=True), by=2)
    assert result.requires_grad, "a result should require a gradient when an input does"
    assert result.origin[0] is shifted, "a result that requires a gradient should remember the op it came from"
    assert not shifted(Tensor([1.0]), by=2).requires_grad, "a result should require a gradient only when an input does"


def can_count_how_often_its_numbers_were_assigned():
    t = Tensor([1, 2])
    before = t.version
    t.data -= 1
    t.data = [[5, 6, 7]]
    agree(t, [[5, 6, 7]], "a tensor whose data was assigned")
    assert t.dtype == np.float32, f"what is assigned to data should become float32, it is {t.dtype}"
    assert t.version == before + 2, f"after two assignments version should have grown by 2, it grew by {t.version - before}"


def can_join_tensors():
    a, b, c = draw((2, 3, 4), 13), draw((2, 5, 4), 14), draw((2, 1, 4), 15)
    for axis in (1, -2):
        joined = answer(concat, Tensor(a), Tensor(b), Tensor(c), axis=axis)
        agree(joined, np.concatenate([a, b, c], axis=1), f"concat of shapes (2, 3, 4), (2, 5, 4) and (2, 1, 4) along axis {axis}")
    agree(answer(concat, a, 2 * a), np.concatenate([a, 2 * a]), "concat of two arrays without axis=, which means axis 0,")
    agree(answer(concat, [1, 2], [3]), [1, 2, 3], "concat([1, 2], [3])")
    assert not np.shares_memory(concat(Tensor(a)).data, a), "concat should make new memory, even of a single part"
    assert concat(Tensor(a, requires_grad=True), b[:, :3]).requires_grad, "what is joined should know its parts"


def can_measure_all_distances_by_one_product():
    a, b = draw((5, 4), 14), draw((7, 4), 15)
    want = ((a[:, None, :].astype(np.float64) - b) ** 2).sum(axis=2)
    got = answer(squared_distances, Tensor(a), Tensor(b))
    agree(got, want, "squared_distances of tensors of shapes (5, 4) and (7, 4)", atol=1e-4)
    linked = squared_distances(Tensor(a, requires_grad=True), Tensor(b))
    assert linked.requires_grad, "the distances should know that they come from the rows"


def can_calculate_at_the_speed_of_numpy():
    a, b, m = draw(10**6, 16), draw(10**6, 17), draw((256, 256), 18)
    x, y, z, wide = Tensor(a), Tensor(b), Tensor(m), Tensor(a.reshape(1000, 1000))
    positive = x * x
    for sign, (plain, ours, _) in ARITHMETIC.items():
        fast(lambda ours=ours: ours(x, y), lambda plain=plain: plain(a, b), f"a million numbers {sign} a million numbers", times=4)
    fast(lambda: -x, lambda: -a, "negating a million numbers", times=4)
    fast(lambda: x ** 2, lambda: a * a, "squaring a million numbers", times=4)
    fast(lambda: exp(x), lambda: np.exp(a), "a million exponentials", times=4)
    fast(lambda: log(positive), lambda: np.log(positive.data), "a million logarithms", times=4)
    fast(lambda: sqrt(positive), lambda: np.sqrt(positive.data), "a million roots", times=4)
    fast(lambda: z @ z, lambda: m @ m, "a product of 256 x 256 matrices", times=5)
    for name, plain in REDUCTIONS.items():
        fast(lambda name=name: getattr(wide, name)(axis=1), lambda plain=plain: plain(wide.data, axis=1),
             f"{name} of a million numbers", times=5)


def can_change_shapes_without_touching_the_numbers():
    a = draw(10**6, 19)
    x = Tensor(a).reshape(100, 100, 100)
    plain = lambda: [a.reshape(1000, 1000).T for _ in range(50)]
    for what, ours in {"Tensor(float32 array)": lambda: Tensor(a), "reshape": lambda: x.reshape(1000, 1000),
                       "transpose": lambda: x.transpose(2, 0, 1), "T": lambda: x.T, "t[1]": lambda: x[1]}.items():
        fast(lambda ours=ours: [ours() for _ in range(50)], plain, f"50 times {what} of a million numbers", times=100)


def can_keep_the_cost_of_small_things_small():
    few, t = np.ones(3, np.float32), Tensor([1, 1, 1])
    a, b = (5, 1, 3, 4), (7, 4, 2)
    plain = lambda: repeated(np.broadcast_shapes, a, a)
    fast(lambda: repeated(lambda: t + t), lambda: repeated(lambda: few + few), "500 additions of three numbers", times=25)
    fast(lambda: repeated(matmul_shape, a, b), plain, "predicting the shapes of 500 products", times=6)
    fast(lambda: repeated(reshape_shape, a, (12, -1)), plain, "predicting the shapes of 500 reshapes", times=4)
    fast(lambda: repeated(held_bytes, few[1:][1:]), lambda: repeated(lambda: few.base is None and few.nbytes),
         "asking for bytes 500 times", times=6)


def can_prepare_data_at_the_speed_of_numpy():
    labels = np.random.default_rng(20).integers(0, 10, size=10**6)
    a, b, half = draw((500, 64), 21), draw((400, 64), 22), draw((1000, 500), 23)
    fast(lambda: Tensor(labels), lambda: labels.astype(np.float32), "a tensor of a million integers", times=4)
    fast(lambda: concat(half, half, axis=1), lambda: np.concatenate([half, half], axis=1), "joining a million numbers", times=4)
    fast(lambda: squared_distances(Tensor(a), Tensor(b)), lambda: (a * a).sum(1)[:, None] - 2 * (a @ b.T) + (b * b).sum(1),
         "distances of 500 to 400 rows", times=4)


def repeated(function, *inputs):
    """Small work 500 times, so that it can be timed."""
    for _ in range(500):
        function(*inputs)
