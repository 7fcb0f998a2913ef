"""The Triton kernel: one launch moves every tensor of a table by a step of SGHMC or SGLD, its noise made in registers.

A program takes BLOCKS counter blocks of one tensor, which is 4 BLOCKS weights, for Philox gives four words at a time.
The words are those of `noise.py`. Everything that changes from step to step is an argument at run time, so a schedule
compiles nothing: no kind of noise or prior, no missing mass or mask is a constant of the kernel.
"""

# Triton reads annotations as the types of a kernel's arguments.
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import triton
import triton.language as tl

from sgmcmc_prune.native.step import NOISES, PRIORS, TensorTable

#: Counter blocks a program takes, and its warps: two blocks a thread would need twice the registers.
BLOCKS = 256
LAUNCH = {"num_warps": 8, "enable_fp_fusion": True}

#: Where the fields of a row of `native.TensorTable` lie: pointers and counts by 8 bytes, the others by 4.
_AT = {name: at for name, (_, at, *_) in TensorTable([], []).rows.dtype.fields.items()}  # type: ignore[union-attr]
WEIGHT, BUFFER, GRADIENT, MASS, HELD, MASK, SIZE, OFFSET = (
    tl.constexpr(_AT[name] // 8) for name in ("weight", "buffer", "gradient", "mass", "held", "mask", "size", "offset")
)
PRIOR, SPIKE, SLAB, LOG_ODDS, SLOPE = (
    tl.constexpr(_AT[name] // 4) for name in ("prior", "spike", "slab", "log_odds", "slope")
)
ROW = tl.constexpr(TensorTable([], []).rows.dtype.itemsize // 8)
IS_FLAT, IS_HELD, IS_MIXTURE = (tl.constexpr(PRIORS[kind]) for kind in ("flat", "held", "mixture"))
NO_NOISE, SIGNS = tl.constexpr(NOISES["none"]), tl.constexpr(NOISES["rademacher"])
TO_UNIT, HALF_WORD = tl.constexpr(2.0**-32), tl.constexpr(2.0**-33)
TWO_PI = tl.constexpr(6.283185307179586)


@triton.jit
def words(key, step, block):
    """Four words of each counter block: `noise.random_words`. `key` is chain and stream over seed."""
    low, high = block.to(tl.uint32), (block >> 32).to(tl.uint32)
    none = low * 0
    return tl.philox(key, low, high, none + step.to(tl.uint32), none + (step >> 32).to(tl.uint32))


@triton.jit
def box_muller(first, second):
    """Two normals of two words: `noise.standard_normal`."""
    radius = tl.sqrt_rn(-2.0 * tl.log(first.to(tl.float32) * TO_UNIT + HALF_WORD))
    angle = (second.to(tl.float32) * TO_UNIT + HALF_WORD) * TWO_PI
    return radius * tl.cos(angle), radius * tl.sin(angle)


@triton.jit
def in_order(a, b, c, d):
    """a0 b0 c0 d0 a1 b1 c1 d1 ..."""
    return tl.interleave(tl.interleave(a, c), tl.interleave(b, d))


@triton.jit
def normals(key, step, block):
    """The four normals of each counter block, in order."""
    a, b, c, d = words(key, step, block)
    a, b = box_muller(a, b)
    c, d = box_muller(c, d)
    return in_order(a, b, c, d)


@triton.jit
def signs(key, step, block):
    """`noise.rademacher` for the weights that normals would take from these blocks: bit j % 32 of word j // 32."""
    a, b, c, d = words(key, step, block >> 5)
    which = block >> 3 & 3
    word = tl.where(which == 0, a, tl.where(which == 1, b, tl.where(which == 2, c, d)))
    word = word >> (4 * (block & 7)).to(tl.uint32)
    bits = in_order(word, word >> 1, word >> 2, word >> 3) & 1
    return bits.to(tl.float32) * 2.0 - 1.0


@triton.jit
def column(row, field, at, live, otherwise):
    """Float32 entries of a tensor of the row, `otherwise` where there is no tensor or weight."""
    address = tl.load(row + field)
    return tl.load(address.to(tl.pointer_type(tl.float32)) + at, tl.where(address != 0, live, False), otherwise)


@triton.jit
def prior_force(row, w, at, live, per_datum):
    """The prior's share of the force: a precision times w / N (`priors.base.FusedForm`)."""
    numbers = row.to(tl.pointer_type(tl.float32))
    kind = tl.load(row.to(tl.pointer_type(tl.int32)) + PRIOR)
    spike, slab = tl.load(numbers + SPIKE), tl.load(numbers + SLAB)
    inclusion, exclusion = tl.zeros_like(w), tl.zeros_like(w) + 1.0
    if kind == IS_HELD:
        inclusion = column(row, HELD, at, live, 0.0)
        exclusion = 1.0 - inclusion
    if kind == IS_MIXTURE:
        odds = tl.load(numbers + LOG_ODDS) + tl.load(numbers + SLOPE) * w * w
        odds = tl.minimum(tl.maximum(odds, -87.0), 87.0)  # beyond, the exponential overflows
        inclusion, exclusion = tl.sigmoid(odds), tl.sigmoid(-odds)
    force = (inclusion * slab + exclusion * spike) * w * per_datum
    if kind == IS_FLAT:
        force = tl.zeros_like(w)
    return force


@triton.jit
def in_memory(index, channels, inner):
    """Where weight (o, channel, i) lies if memory runs over o, i, channel: channels last, or a transposed matrix."""
    at = index
    if inner > 1:
        rest = index % (channels * inner)
        at = index - rest + rest % inner * channels + rest // inner
    return at


@triton.jit
def make_noise(kind, key, step, block):
    """Four of the kind's numbers for each counter block, in order."""
    z = tl.zeros([4 * block.shape[0]], tl.float32)
    if kind == SIGNS:
        z = signs(key, step, block)
    elif kind != NO_NOISE:
        z = normals(key, step, block)
    return z


@triton.jit(do_not_specialize=["key", "step", "noise", "lr", "momentum", "rescale", "noise_scale", "per_datum"])
def step_kernel(
    rows,
    places,
    blocked,
    key: tl.int64,
    step: tl.int64,
    noise: tl.int32,
    lr: tl.float32,
    momentum: tl.float32,
    rescale: tl.float32,
    noise_scale: tl.float32,
    per_datum: tl.float32,
    BLOCKS: tl.constexpr,
):
    """b <- rescale beta b + force - noise_scale M^(1/2) xi;  w <- w - l M^-1 b;  without buffers, the step of SGLD.

    Nothing moves once `blocked` is not zero.
    """
    if tl.load(blocked) != 0:
        return
    place = places + 4 * tl.program_id(0)
    row, first = rows + ROW * tl.load(place), tl.load(place + 1)
    index = (4 * first - tl.load(row + OFFSET)).to(tl.int32) + tl.arange(0, 4 * BLOCKS)
    live = (index >= 0) & (index < tl.load(row + SIZE).to(tl.int32))
    at = in_memory(index, tl.load(place + 2).to(tl.int32), tl.load(place + 3).to(tl.int32))

    z = make_noise(noise, key, step, first + tl.arange(0, BLOCKS))
    w = column(row, WEIGHT, at, live, 0.0)
    force = column(row, GRADIENT, at, live, 0.0) + prior_force(row, w, at, live, per_datum)
    mass = column(row, MASS, at, live, 1.0)
    buffers, mask = tl.load(row + BUFFER), tl.load(row + MASK)
    kept = tl.load(mask.to(tl.pointer_type(tl.uint8)) + at, tl.where(mask != 0, live, False), 1) != 0
    if buffers != 0:
        b = rescale * momentum * column(row, BUFFER, at, live, 0.0) + force - noise_scale * tl.sqrt(mass) * z
        w -= lr * b / mass
        tl.store(buffers.to(tl.pointer_type(tl.float32)) + at, tl.where(kept, b, 0.0), live)
    else:
        w += noise_scale * z / tl.sqrt(mass) - lr * force / mass
    tl.store(tl.load(row + WEIGHT).to(tl.pointer_type(tl.float32)) + at, tl.where(kept, w, 0.0), live)
