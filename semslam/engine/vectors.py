"""Rows of three or four numbers as columns, and back: for compiled loops that run over whole vectors.

By hand, because the compiler would gather and scatter the numbers one by one.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

LANES = 16  # of a vector
GROUP = 256  # rows that are worked on together: all that is known of them stays in the first cache


def _four_vectors(context, builder, signature, arguments, k, stride):
    """Pointers to four vectors of `LANES` float32, `stride` apart, from argument k, an array, at argument k + 1."""
    from numba.np.arrayobj import make_array

    data = make_array(signature.args[k])(context, builder, arguments[k]).data
    vector = ir.VectorType(ir.FloatType(), LANES).as_pointer()
    places = (builder.add(arguments[k + 1], arguments[k + 1].type(m * stride)) for m in range(4))
    return [builder.bitcast(builder.gep(data, [place]), vector) for place in places]


def _shuffled(builder, a, b, mask):
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), len(mask)), mask))


@intrinsic
def to_triples(typing_context, columns, c, length, rows, r):
    """rows[r + 3 * j + k] = columns[c + k * length + j] for j < `LANES`, k < 3; both flat float32."""
    signature = types.void(columns, types.intp, types.intp, rows, types.intp)

    def generate(context, builder, signature, arguments):
        from numba.np.arrayobj import make_array

        vector = ir.VectorType(ir.FloatType(), LANES).as_pointer()

        def place(k, index):
            data = make_array(signature.args[k])(context, builder, arguments[k]).data
            return builder.bitcast(builder.gep(data, [index]), vector)

        first, length = arguments[1], arguments[2]
        starts = [first, builder.add(first, length), builder.add(first, builder.mul(length, length.type(2)))]
        x, y, z = (builder.load(place(0, start), align=4) for start in starts)
        for m in range(3):
            parts = [divmod(LANES * m + lane, 3) for lane in range(LANES)]  # which point, which of its numbers
            of_x_and_y = _shuffled(builder, x, y, [j + LANES * (k == 1) for j, k in parts])
            mask = [LANES + j if k == 2 else lane for lane, (j, k) in enumerate(parts)]
            pointer = place(3, builder.add(arguments[4], arguments[4].type(LANES * m)))
            builder.store(_shuffled(builder, of_x_and_y, z, mask), pointer, align=4)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def to_columns(typing_context, rows, r, columns, c):
    """columns[c + k * GROUP + j] = rows[r + 4 * j + k] for j < `LANES`, k < 4; both flat float32."""
    signature = types.void(rows, types.intp, columns, types.intp)

    def generate(context, builder, signature, arguments):
        loaded = [builder.load(p, align=4) for p in _four_vectors(context, builder, signature, arguments, 0, LANES)]
        for k, pointer in enumerate(_four_vectors(context, builder, signature, arguments, 2, GROUP)):
            every_fourth = [4 * j + k for j in range(LANES // 2)]
            halves = [_shuffled(builder, *loaded[h : h + 2], every_fourth) for h in (0, 2)]
            builder.store(_shuffled(builder, *halves, list(range(LANES))), pointer, align=4)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def to_rows(typing_context, columns, c, rows, r):
    """The inverse of `to_columns`."""
    signature = types.void(columns, types.intp, rows, types.intp)

    def generate(context, builder, signature, arguments):
        loaded = [builder.load(p, align=4) for p in _four_vectors(context, builder, signature, arguments, 0, GROUP)]
        for m, pointer in enumerate(_four_vectors(context, builder, signature, arguments, 2, LANES)):
            pairs = [4 * m + j + lane for j in range(4) for lane in (0, LANES)]
            halves = [_shuffled(builder, *loaded[h : h + 2], pairs) for h in (0, 2)]
            order = [2 * j + lane for j in range(4) for lane in (0, 1, 8, 9)]
            builder.store(_shuffled(builder, *halves, order), pointer, align=4)
        return context.get_dummy_value()

    return signature, generate
