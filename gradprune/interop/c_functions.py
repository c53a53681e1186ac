"""The functions of C that layers call: each is written into a file once, if something calls it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gradprune.interop.c_text import folded
from gradprune.interop.c_weights import MatrixForm

__all__ = [
    "ACTIVATIONS",
    "RESERVED",
    "WINDOW",
    "Function",
    "activation",
    "convolution",
    "dense",
    "dense_on_integers",
    "known",
]


class Function(NamedTuple):
    """A function of C, or a type.

    Attributes:
        name: its name.
        text: what defines it.
        needs: names of ``known`` functions that it calls.
        math: whether it needs math.h.
    """

    name: str
    text: str
    needs: Sequence[str] = ()
    math: bool = False


# A float ``v`` to what becomes of it, and whether math.h is needed; a NaN stays one.
ACTIVATIONS = {
    "relu": ("v <= 0.0f ? 0.0f : v", False),
    "leaky_relu": ("v > 0.0f ? v : v * slope", False),
    "tanh": ("tanhf(v)", True),
    "sigmoid": ("sigmoid_of(v)", True),
    "gelu": ("0.5f * v * erfcf(v * -0.707106781f)", True),
    "silu": ("v * sigmoid_of(v)", True),
    "elu": ("v > 0.0f ? v : slope * expm1f(v)", True),
    "hardswish": ("v <= -3.0f ? 0.0f : v >= 3.0f ? v : v * (v + 3.0f) / 6.0f", False),
    "relu6": ("v <= 0.0f ? 0.0f : v >= 6.0f ? 6.0f : v", False),
}

WINDOW = "window"


def activation(name: str) -> Function:
    """Return the function of an activation, which takes the slope if its expression does."""
    expression, math = ACTIVATIONS[name]
    slope = ", float slope" if "slope" in expression else ""
    text = f"""\
static void apply_{name}(const float *x, float *y, size_t n{slope})
{{
    for (size_t i = 0; i < n; i++) {{
        const float v = x[i];
        y[i] = {expression};
    }}
}}
"""
    return Function(
        f"apply_{name}", text, ["sigmoid_of"] if "sigmoid_of" in expression else [], math
    )


def dense(form: MatrixForm) -> Function:
    """Return the product with a matrix in this form."""
    loop = form.product("x[column]", "(bias ? bias[row] : 0.0f)")
    name = f"dense_{form.name}"
    columns = [] if form.counts else ["size_t columns"]
    head = _head(name, [*form.parameters, "const float *bias", "size_t rows", *columns])
    return Function(name, f"/* y = weight x + bias */\n{head}\n{{\n{_inside(loop)}\n}}\n")


def dense_on_integers(form: MatrixForm) -> Function:
    """Return the product with a matrix of integers in this form.

    y_r = scale_r s sum_i q_ri (u_i - zero) + b_r of a sample x ~ s (u - zero), in the order in
    which a model frozen to int8 rounds.
    """
    loop = form.loop(
        "int32_t sum = 0;",
        lambda _, weight: f"sum += {weight} * (bytes[column] - zero);",
        "const float both = unit * scale[row];\n"
        "const float product = (float)sum * both;\n"
        "y[row] = product + (bias ? bias[row] : 0.0f);",
    )
    name = f"dense_{form.name}"
    own = ["const float *scale", "const float *bias", "size_t rows", "size_t columns"]
    text = f"""\
/* y = weight x + bias, of a sample and weights that are bytes with scales */
{_head(name, [*form.parameters, *own, "uint8_t *bytes"])}
{{
    int32_t zero;
    const float unit = to_bytes(x, bytes, columns, &zero);
{_inside(loop)}
}}
"""
    return Function(name, text, ["to_bytes"])


def convolution(form: MatrixForm) -> Function:
    """Return the convolution with filters in this form."""
    loop = form.loop(
        "float *out = y + row * places;\n"
        "const float *in = x + row / (rows / w->groups) * (columns / kernel) * plane;\n"
        "for (size_t i = 0; i < places; i++) out[i] = bias ? bias[row] : 0.0f;",
        lambda _, weight: (
            "const size_t at = column % kernel;\n"
            f"slide(in + column / kernel * plane, out, {weight}, w,\n"
            "      at / w->kernel[1] * w->dilation[0], at % w->kernel[1] * w->dilation[1]);"
        ),
        "",
    )
    name = f"convolution_{form.name}"
    own = ["const float *bias", "size_t rows", "const window *w"]
    text = f"""\
/* the sums of windows, filter by filter and weight by weight */
{_head(name, [*form.parameters, *own])}
{{
    const size_t plane = w->size[0] * w->size[1], kernel = w->kernel[0] * w->kernel[1];
    const size_t places = w->places[0] * w->places[1], columns = w->channels / w->groups * kernel;
{_inside(loop)}
}}
"""
    return Function(name, text, ["slide"])


def _head(name: str, parameters: Sequence[str]) -> str:
    return folded(f"static void {name}({', '.join(['const float *x', 'float *y', *parameters])})")


def _inside(text: str) -> str:
    return "\n".join(f"    {line}" if line else "" for line in text.splitlines())


_KNOWN = (
    Function(
        "to_bytes",
        """\
/* a sample as bytes, x ~ unit (byte - zero), by its largest number; the unit of one that is not
 * finite is a NaN. Adding 1.5 * 2^23 leaves the nearest integer in the last bits. */
static float to_bytes(const float *x, uint8_t *bytes, size_t n, int32_t *zero)
{
    float top = 0.0f, unit = 0.0f, factor = 0.0f;
    *zero = 0;
    for (size_t i = 0; i < n; i++) {
        const float size = x[i] < 0.0f ? -x[i] : x[i];
        if (x[i] < 0.0f) *zero = 128;
        if (size > top || size != size) top = size;
    }
    const float most = *zero ? 127.0f : 255.0f;
    if (!(top <= 0x1.fffffep+127f)) {
        unit = top - top;
    } else if (top >= 1e-30f) {
        unit = top / most;
        factor = most / top;
    }
    for (size_t i = 0; i < n; i++) {
        union {
            float number;
            uint32_t bits;
        } v = {x[i] * factor};
        v.number += 12582912.0f + (float)*zero;
        bytes[i] = (uint8_t)(v.bits & 255);
    }
    return unit;
}
""",
    ),
    Function(
        WINDOW,
        """\
/* how a window slides over planes; of pairs the first is along the height */
typedef struct window {
    size_t channels, size[2], places[2], kernel[2], stride[2], dilation[2], before[2], groups;
} window;
""",
    ),
    Function(
        "reach",
        """\
/* the places along an axis at which a window sees a pixel by a weight that is `at` into it */
static void reach(const window *w, size_t axis, size_t at, size_t *first, size_t *end)
{
    const size_t stride = w->stride[axis], before = w->before[axis];
    const size_t last = before + w->size[axis];
    *first = at >= before ? 0 : (before - at + stride - 1) / stride;
    *end = at >= last ? 0 : (last - at - 1) / stride + 1;
    if (*end > w->places[axis]) *end = w->places[axis];
}
""",
        [WINDOW],
    ),
    Function(
        "slide",
        """\
/* adds a plane times one weight of a filter, which is so far down and across in the window */
static void slide(const float *x, float *y, float weight, const window *w, size_t down,
                  size_t across)
{
    size_t top, bottom, left, right;
    reach(w, 0, down, &top, &bottom);
    reach(w, 1, across, &left, &right);
    for (size_t i = top; i < bottom; i++) {
        const float *line = x + (i * w->stride[0] + down - w->before[0]) * w->size[1];
        float *out = y + i * w->places[1];
        for (size_t j = left; j < right; j++)
            out[j] += weight * line[j * w->stride[1] + across - w->before[1]];
    }
}
""",
        ["reach"],
    ),
    Function(
        "seen",
        """\
/* the pixels along an axis that the window at a place sees */
static void seen(const window *w, size_t axis, size_t place, size_t *first, size_t *end)
{
    const size_t at = place * w->stride[axis], before = w->before[axis];
    const size_t last = before + w->size[axis], ends = at + w->kernel[axis];
    *first = at > before ? at - before : 0;
    *end = (ends < last ? ends : last) - before;
}
""",
        [WINDOW],
    ),
    Function(
        "pool_max",
        """\
/* the largest number of each window, without what pads */
static void pool_max(const float *x, float *y, const window *w)
{
    for (size_t c = 0; c < w->channels; c++, x += w->size[0] * w->size[1])
        for (size_t i = 0; i < w->places[0]; i++)
            for (size_t j = 0; j < w->places[1]; j++) {
                size_t top, bottom, left, right;
                seen(w, 0, i, &top, &bottom);
                seen(w, 1, j, &left, &right);
                float most = x[top * w->size[1] + left];
                for (size_t row = top; row < bottom; row++)
                    for (size_t column = left; column < right; column++) {
                        const float v = x[row * w->size[1] + column];
                        if (!(v <= most)) most = v;
                    }
                *y++ = most;
            }
}
""",
        ["seen"],
    ),
    Function(
        "pool_mean",
        """\
/* the mean of each window, in which what pads counts as 0 */
static void pool_mean(const float *x, float *y, const window *w)
{
    const float factor = 1.0f / (float)(w->kernel[0] * w->kernel[1]);
    for (size_t c = 0; c < w->channels; c++, x += w->size[0] * w->size[1])
        for (size_t i = 0; i < w->places[0]; i++)
            for (size_t j = 0; j < w->places[1]; j++) {
                size_t top, bottom, left, right;
                seen(w, 0, i, &top, &bottom);
                seen(w, 1, j, &left, &right);
                float sum = 0.0f;
                for (size_t row = top; row < bottom; row++)
                    for (size_t column = left; column < right; column++)
                        sum += x[row * w->size[1] + column];
                *y++ = sum * factor;
            }
}
""",
        ["seen"],
    ),
    Function(
        "sigmoid_of",
        """\
static float sigmoid_of(float v)
{
    return 1.0f / (1.0f + expf(-v));
}
""",
        math=True,
    ),
    Function(
        "softmax",
        """\
static void softmax(const float *x, float *y, size_t n)
{
    float most = x[0], sum = 0.0f;
    for (size_t i = 1; i < n; i++)
        if (!(x[i] <= most)) most = x[i];
    for (size_t i = 0; i < n; i++) {
        y[i] = expf(x[i] - most);
        sum += y[i];
    }
    for (size_t i = 0; i < n; i++) y[i] /= sum;
}
""",
        math=True,
    ),
    Function(
        "normalize",
        """\
/* y = (x - mean) scale + shift, channel by channel; numbers of a channel lie together */
static void normalize(const float *x, float *y, const float *mean, const float *scale,
                      const float *shift, size_t channels, size_t together)
{
    for (size_t c = 0; c < channels; c++)
        for (size_t i = 0; i < together; i++) *y++ = (*x++ - mean[c]) * scale[c] + shift[c];
}
""",
    ),
    Function(
        "layernorm",
        """\
/* y = (x - mean) / sqrt(variance + eps) scale + shift, mean and variance being those of x */
static void layernorm(const float *x, float *y, const float *scale, const float *shift, size_t n,
                      float eps)
{
    float mean = 0.0f, variance = 0.0f;
    for (size_t i = 0; i < n; i++) mean += x[i];
    mean /= (float)n;
    for (size_t i = 0; i < n; i++) variance += (x[i] - mean) * (x[i] - mean);
    const float factor = 1.0f / sqrtf(variance / (float)n + eps);
    for (size_t i = 0; i < n; i++) y[i] = (x[i] - mean) * factor * scale[i] + shift[i];
}
""",
        math=True,
    ),
    Function(
        "lstm",
        """\
/* one step of an LSTM: gates i, f, g, o of the input and of the state */
static void lstm(const float *z, const float *s, float *c, float *h, size_t units)
{
    for (size_t i = 0; i < units; i++) {
        const float in = sigmoid_of(z[i] + s[i]);
        const float forget = sigmoid_of(z[units + i] + s[units + i]);
        const float cell = tanhf(z[2 * units + i] + s[2 * units + i]);
        const float out = sigmoid_of(z[3 * units + i] + s[3 * units + i]);
        c[i] = forget * c[i] + in * cell;
        h[i] = out * tanhf(c[i]);
    }
}
""",
        ["sigmoid_of"],
        math=True,
    ),
    Function(
        "gru",
        """\
/* one step of a GRU: gates r, z, n of the input and of the state */
static void gru(const float *z, const float *s, float *h, size_t units)
{
    for (size_t i = 0; i < units; i++) {
        const float reset = sigmoid_of(z[i] + s[i]);
        const float update = sigmoid_of(z[units + i] + s[units + i]);
        const float cell = tanhf(z[2 * units + i] + reset * s[2 * units + i]);
        h[i] = (1.0f - update) * cell + update * h[i];
    }
}
""",
        ["sigmoid_of"],
        math=True,
    ),
    Function(
        "add",
        """\
static void add(const float *a, const float *b, float *y, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] = a[i] + b[i];
}
""",
    ),
    Function(
        "copy",
        """\
/* copies rows of so many floats, which lie so far apart in y */
static void copy(const float *x, float *y, size_t rows, size_t n, size_t apart)
{
    for (size_t row = 0; row < rows; row++, y += apart)
        for (size_t i = 0; i < n; i++) y[i] = *x++;
}
""",
    ),
    Function(
        "part",
        """\
/* copies rows of so many floats, which lie so far apart in x */
static void part(const float *x, float *y, size_t rows, size_t n, size_t apart)
{
    for (size_t row = 0; row < rows; row++, x += apart)
        for (size_t i = 0; i < n; i++) *y++ = x[i];
}
""",
    ),
    Function(
        "rearrange",
        """\
/* copies numbers in another order: along each axis of y, how far apart they are in x */
static void rearrange(const float *x, float *y, const size_t size[3], const size_t apart[3],
                      int backward)
{
    for (size_t i = 0; i < size[0]; i++)
        for (size_t j = 0; j < size[1]; j++)
            for (size_t k = 0; k < size[2]; k++)
                *y++ = x[(backward ? size[0] - 1 - i : i) * apart[0] + j * apart[1] + k * apart[2]];
}
""",
    ),
    Function(
        "row_of",
        """\
/* the row that a number names; what names none is taken for the nearest one */
static size_t row_of(float v, size_t rows)
{
    if (!(v > 0.0f)) return 0;
    return v < (float)rows ? (size_t)v : rows - 1;
}
""",
    ),
)


def known(name: str) -> Function:
    """Return a function that does not depend on a form."""
    return _TABLE[name]


_TABLE = {function.name: function for function in _KNOWN}

# No array has such a name.
RESERVED = (*_TABLE, *(f"apply_{name}" for name in ACTIVATIONS))
