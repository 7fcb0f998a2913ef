// One pass over memory for a sampler's step, with the noise made in registers and L1.
//
// The words are those of noise.py (Philox4x32-10 keyed by seed, chain and stream, counted by step and offset). Work goes by
// chunks of at most CHUNK weights, small enough for L1: noise, prior, update, mask are simple loops that the compiler
// turns into vector code. Fused multiply-adds are written out and contraction is off, so that a weight's result does not
// depend on where its chunk or thread begins.
#include <math.h>
#include <stdint.h>
#ifdef __AVX2__
#include <immintrin.h>
#endif

// ---------------------------------------------------------------- what this file was built from, and for

// The hash of this source: a library older than its source has other structures.
const char built_from[] = SOURCE_HASH;

// The instruction sets that the compiler could use, by their names in /proc/cpuinfo: another processor may lack them.
const char built_for[] = ""
#ifdef __SSE4_2__
    "sse4_2 "
#endif
#ifdef __AVX__
    "avx "
#endif
#ifdef __F16C__
    "f16c "
#endif
#ifdef __FMA__
    "fma "
#endif
#ifdef __FMA4__
    "fma4 "
#endif
#ifdef __XOP__
    "xop "
#endif
#ifdef __BMI__
    "bmi1 "
#endif
#ifdef __BMI2__
    "bmi2 "
#endif
#ifdef __LZCNT__
    "abm "
#endif
#ifdef __MOVBE__
    "movbe "
#endif
#ifdef __AVX2__
    "avx2 "
#endif
#ifdef __GFNI__
    "gfni "
#endif
#ifdef __AVXVNNI__
    "avx_vnni "
#endif
#ifdef __AVX512F__
    "avx512f "
#endif
#ifdef __AVX512CD__
    "avx512cd "
#endif
#ifdef __AVX512DQ__
    "avx512dq "
#endif
#ifdef __AVX512BW__
    "avx512bw "
#endif
#ifdef __AVX512VL__
    "avx512vl "
#endif
#ifdef __AVX512IFMA__
    "avx512ifma "
#endif
#ifdef __AVX512VBMI__
    "avx512vbmi "
#endif
#ifdef __AVX512VBMI2__
    "avx512_vbmi2 "
#endif
#ifdef __AVX512VNNI__
    "avx512_vnni "
#endif
#ifdef __AVX512BITALG__
    "avx512_bitalg "
#endif
#ifdef __AVX512VPOPCNTDQ__
    "avx512_vpopcntdq "
#endif
#ifdef __AVX512BF16__
    "avx512_bf16 "
#endif
#ifdef __AVX512FP16__
    "avx512_fp16 "
#endif
#ifdef __ARM_FEATURE_DOTPROD
    "asimddp "
#endif
#ifdef __ARM_FEATURE_SVE
    "sve "
#endif
#ifdef __ARM_FEATURE_SVE2
    "sve2 "
#endif
#ifdef __ARM_FEATURE_BF16
    "bf16 "
#endif
#ifdef __ARM_FEATURE_MATMUL_INT8
    "i8mm "
#endif
    ;

#define CHUNK 1024
#define BLOCKS (CHUNK / 4)
#define SPACE (CHUNK + 256) // noise of a chunk, from the start of its first counter block to the end of its last
#define LANES 8             // of a vector of floats
#define INLINE static inline __attribute__((always_inline))

// ---------------------------------------------------------------- counter-based noise

#define MULTIPLIER_0 0xD2511F53u
#define MULTIPLIER_1 0xCD9E8D57u
#define INCREMENT_0 0x9E3779B9u
#define INCREMENT_1 0xBB67AE85u

typedef struct {
    uint32_t seed, chain_and_stream;
    uint64_t step;
} key_t_;

// The four words of one block. Arrays by word, not by block, because unit strides make vector code.
INLINE void philox_block(key_t_ key, uint64_t block, int i, uint32_t (*restrict words)[BLOCKS]) {
    uint32_t a = (uint32_t)block, b = (uint32_t)(block >> 32), c = (uint32_t)key.step, d = (uint32_t)(key.step >> 32);
    uint32_t k0 = key.seed, k1 = key.chain_and_stream;
    for (int round = 0; round < 10; round++) {
        uint64_t left = (uint64_t)MULTIPLIER_0 * a, right = (uint64_t)MULTIPLIER_1 * c;
        a = (uint32_t)(right >> 32) ^ b ^ k0;
        c = (uint32_t)(left >> 32) ^ d ^ k1;
        b = (uint32_t)right;
        d = (uint32_t)left;
        k0 += INCREMENT_0;
        k1 += INCREMENT_1;
    }
    words[0][i] = a;
    words[1][i] = b;
    words[2][i] = c;
    words[3][i] = d;
}

#ifdef __AVX2__
// The lower halves of eight lanes, in their order.
INLINE void store_lower(uint32_t *to, __m256i x, __m256i y) {
    __m256 halves = _mm256_shuffle_ps(_mm256_castsi256_ps(x), _mm256_castsi256_ps(y), 0x88); // x0 x1 y0 y1 x2 x3 y2 y3
    _mm256_storeu_si256((__m256i *)to, _mm256_permute4x64_epi64(_mm256_castps_si256(halves), 0xd8));
}

// Eight consecutive blocks at once, four to a vector, each word in the lower half of a lane of 64 bits: what is above it is
// never read, and a product needs no unpacking. Compilers do not find this by themselves.
INLINE void philox_eight(key_t_ key, uint64_t block, int i, uint32_t (*restrict words)[BLOCKS]) {
    const __m256i multiplier_0 = _mm256_set1_epi64x(MULTIPLIER_0), multiplier_1 = _mm256_set1_epi64x(MULTIPLIER_1);
    __m256i a[2], b[2], c[2], d[2];
    for (int v = 0; v < 2; v++) {
        a[v] = _mm256_add_epi64(_mm256_set1_epi64x((int64_t)block), _mm256_setr_epi64x(4 * v, 4 * v + 1, 4 * v + 2, 4 * v + 3));
        b[v] = _mm256_set1_epi64x((int64_t)(block >> 32));
        c[v] = _mm256_set1_epi64x((int64_t)key.step);
        d[v] = _mm256_set1_epi64x((int64_t)(key.step >> 32));
    }
    uint32_t k0 = key.seed, k1 = key.chain_and_stream;
    for (int round = 0; round < 10; round++) {
        for (int v = 0; v < 2; v++) {
            __m256i left = _mm256_mul_epu32(a[v], multiplier_0), right = _mm256_mul_epu32(c[v], multiplier_1);
            a[v] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(right, 32), b[v]), _mm256_set1_epi64x(k0));
            c[v] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(left, 32), d[v]), _mm256_set1_epi64x(k1));
            b[v] = right;
            d[v] = left;
        }
        k0 += INCREMENT_0;
        k1 += INCREMENT_1;
    }
    store_lower(&words[0][i], a[0], a[1]);
    store_lower(&words[1][i], b[0], b[1]);
    store_lower(&words[2][i], c[0], c[1]);
    store_lower(&words[3][i], d[0], d[1]);
}
#endif

// Blocks first, ..., first + count - 1 of a step.
INLINE void philox(key_t_ key, uint64_t first, int count, uint32_t (*restrict words)[BLOCKS]) {
    int i = 0;
#ifdef __AVX2__
    if ((uint32_t)first <= UINT32_MAX - BLOCKS) // no carry into the upper half of the counter
        for (; i + 8 <= count; i += 8) philox_eight(key, first + (uint64_t)i, i, words);
#endif
    for (; i < count; i++) philox_block(key, first + (uint64_t)i, i, words);
}

INLINE float from_bits(uint32_t bits) {
    float x;
    __builtin_memcpy(&x, &bits, 4);
    return x;
}

INLINE uint32_t to_bits(float x) {
    uint32_t bits;
    __builtin_memcpy(&bits, &x, 4);
    return bits;
}

// Natural logarithm of a positive normal number, in (0, 1] within 2 ulp (polynomial of Cephes, Moshier 1992).
INLINE float log_of(float x) {
    int32_t above = (int32_t)to_bits(x) - 0x3f3504f3; // x = 2^e (1 + f), with 1 + f from sqrt(1/2) up to sqrt(2)
    float e = (float)(above >> 23);
    float f = from_bits((uint32_t)((above & 0x7fffff) + 0x3f3504f3)) - 1.0f;
    float y = 7.0376836292e-2f;
    y = __builtin_fmaf(y, f, -1.1514610310e-1f);
    y = __builtin_fmaf(y, f, 1.1676998740e-1f);
    y = __builtin_fmaf(y, f, -1.2420140846e-1f);
    y = __builtin_fmaf(y, f, 1.4249322787e-1f);
    y = __builtin_fmaf(y, f, -1.6668057665e-1f);
    y = __builtin_fmaf(y, f, 2.0000714765e-1f);
    y = __builtin_fmaf(y, f, -2.4999993993e-1f);
    y = __builtin_fmaf(y, f, 3.3333331174e-1f);
    float square = f * f;
    y = __builtin_fmaf(y * f, square, e * -2.12194440e-4f);
    y = __builtin_fmaf(square, -0.5f, y);
    return __builtin_fmaf(e, 0.693359375f, f + y);
}

// Sine and cosine of x in [0, 2 pi], within 2 ulp of the result, zeros included (polynomials of Cephes).
INLINE void sine_cosine(float x, float *sine, float *cosine) {
    float quarter = (x * 0.636619772f + 12582912.0f) - 12582912.0f; // round to nearest
    float r = __builtin_fmaf(quarter, -1.57079625129699707031f, x);
    r = __builtin_fmaf(quarter, -7.54978941586159635335e-8f, r);
    r = __builtin_fmaf(quarter, -5.39030252995776476554e-15f, r);
    float z = r * r;
    float s = __builtin_fmaf(__builtin_fmaf(-1.9515295891e-4f, z, 8.3321608736e-3f), z, -1.6666654611e-1f);
    s = __builtin_fmaf(s * z, r, r);
    float c = __builtin_fmaf(__builtin_fmaf(2.443315711809948e-5f, z, -1.388731625493765e-3f), z, 4.166664568298827e-2f);
    c = __builtin_fmaf(c * z, z, __builtin_fmaf(z, -0.5f, 1.0f));
    int32_t q = (int32_t)quarter;
    uint32_t flip_sine = (uint32_t)(q & 2) << 30, flip_cosine = (uint32_t)((q + 1) & 2) << 30;
    float swapped_s = q & 1 ? c : s, swapped_c = q & 1 ? s : c;
    *sine = from_bits(to_bits(swapped_s) ^ flip_sine);
    *cosine = from_bits(to_bits(swapped_c) ^ flip_cosine);
}

INLINE float uniform(uint32_t word) { return (float)word * 0x1p-32f + 0x1p-33f; }

// Two words to two normals, by Box and Muller.
INLINE void polar(uint32_t first, uint32_t second, float *cosine, float *sine) {
    float radius = sqrtf(-2.0f * log_of(uniform(first))), c, s;
    sine_cosine(uniform(second) * 6.28318548f, &s, &c);
    *cosine = c * radius;
    *sine = s * radius;
}

// Words (0, 1) and (2, 3) of each block give its normals (0, 1) and (2, 3). Both pairs in one loop: they are long chains of
// dependent operations, and the processor works on the one while it waits for the other.
INLINE void box_muller(int count, const uint32_t (*restrict words)[BLOCKS], float *restrict normals) {
    float columns[4][BLOCKS];
    for (int i = 0; i < count; i++) {
        polar(words[0][i], words[1][i], &columns[0][i], &columns[1][i]);
        polar(words[2][i], words[3][i], &columns[2][i], &columns[3][i]);
    }
    for (int i = 0; i < count; i++)
        for (int k = 0; k < 4; k++) normals[4 * i + k] = columns[k][i];
}

// Normals of weights offset, ..., offset + count - 1 (count <= CHUNK - 4): a pointer into `space`.
INLINE const float *chunk_normals(key_t_ key, uint64_t offset, int count, float *space) {
    uint32_t words[4][BLOCKS];
    uint64_t first = offset / 4;
    int blocks = (int)((offset + (uint64_t)count + 3) / 4 - first);
    blocks = (blocks + LANES - 1) / LANES * LANES; // some too many, so that none is left over from vector code
    philox(key, first, blocks, words);
    box_muller(blocks, (const uint32_t(*)[BLOCKS])words, space);
    return space + (offset - 4 * first);
}

// Signs +-1 of the same weights: bit j % 32 of word j / 32.
INLINE const float *chunk_signs(key_t_ key, uint64_t offset, int count, float *space) {
    uint32_t words[4][BLOCKS];
    uint64_t first = offset / 128;
    int blocks = (int)((offset + (uint64_t)count + 127) / 128 - first);
    philox(key, first, blocks, words);
    for (int k = 0; k < 4 * blocks; k++) {
        uint32_t word = words[k & 3][k >> 2];
        for (uint32_t j = 0; j < 32; j++) space[32 * k + (int)j] = from_bits(0xbf800000u ^ ((word >> j) << 31)); // 1 is +1
    }
    return space + (offset - 128 * first);
}

// Where part k of n begins, of `total` weights.
INLINE int64_t part(int64_t total, int k, int n) { return total / n * k + total % n * k / n; }

typedef const float *noise_t(key_t_, uint64_t, int, float *);

INLINE void noise_range(key_t_ key, uint64_t offset, int64_t first, int64_t last, float *out, noise_t noise) {
    float space[SPACE];
    for (int64_t at = first; at < last;) {
        int n = (int)(last - at < CHUNK - 4 ? last - at : CHUNK - 4);
        const float *z = noise(key, offset + (uint64_t)at, n, space);
        for (int i = 0; i < n; i++) out[at + i] = z[i];
        at += n;
    }
}

void standard_normal(const key_t_ *key, uint64_t offset, int64_t count, float *out, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int k = 0; k < threads; k++)
        noise_range(*key, offset, part(count, k, threads), part(count, k + 1, threads), out, chunk_normals);
}

void rademacher(const key_t_ *key, uint64_t offset, int64_t count, float *out, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int k = 0; k < threads; k++)
        noise_range(*key, offset, part(count, k, threads), part(count, k + 1, threads), out, chunk_signs);
}

// ---------------------------------------------------------------- priors

enum { FLAT, GAUSSIAN, MIXTURE, HELD };

typedef struct {
    float *weight, *buffer;
    const float *gradient, *mass, *noise, *held; // mass and noise may be null
    const uint8_t *mask;                         // may be null
    int64_t size;
    uint64_t offset;
    int32_t prior;
    float spike, slab;        // precisions; GAUSSIAN uses spike alone
    float log_odds, slope;    // MIXTURE: eta = log_odds + slope w^2
} tensor_t;

// exp within 2 ulp for x in [-87, 87], and its values there outside (Cephes).
INLINE float exp_clamped(float x) {
    x = x < -87.0f ? -87.0f : x;
    x = x > 87.0f ? 87.0f : x;
    float n = (x * 1.44269504f + 12582912.0f) - 12582912.0f;
    float r = __builtin_fmaf(n, -0.693359375f, x);
    r = __builtin_fmaf(n, 2.12194440e-4f, r);
    float y = 1.9875691500e-4f;
    y = __builtin_fmaf(y, r, 1.3981999507e-3f);
    y = __builtin_fmaf(y, r, 8.3334519073e-3f);
    y = __builtin_fmaf(y, r, 4.1665795894e-2f);
    y = __builtin_fmaf(y, r, 1.6666665459e-1f);
    y = __builtin_fmaf(y, r, 5.0000001201e-1f);
    y = __builtin_fmaf(y * r, r, r + 1.0f);
    return y * from_bits((uint32_t)((int32_t)n + 127) << 23);
}

// r = sigmoid(log_odds + slope w^2)
INLINE void chunk_inclusion(float log_odds, float slope, int n, const float *restrict w, float *restrict inclusion) {
    for (int i = 0; i < n; i++)
        inclusion[i] = 1.0f / (1.0f + exp_clamped(-__builtin_fmaf(slope, w[i] * w[i], log_odds)));
}

// r slab + (1 - r) spike, of precisions: never spike + r (slab - spike), whose rounding is that of the spike.
INLINE float mean_precision(float r, float rest, float slab, float spike) { return __builtin_fmaf(r, slab, rest * spike); }

// force = gradient + precision * w / N, with the precision of the prior at w.
INLINE void chunk_force(const tensor_t *t, int64_t at, int n, float per_datum, float *restrict force) {
    const float *restrict g = t->gradient + at, *restrict w = t->weight + at;
    if (t->prior == FLAT) {
        for (int i = 0; i < n; i++) force[i] = g[i];
    } else if (t->prior == GAUSSIAN) {
        float decay = t->spike * per_datum;
        for (int i = 0; i < n; i++) force[i] = __builtin_fmaf(decay, w[i], g[i]);
    } else if (t->prior == HELD) {
        const float *restrict held = t->held + at;
        float spike = t->spike, slab = t->slab;
        for (int i = 0; i < n; i++)
            force[i] = __builtin_fmaf(mean_precision(held[i], 1.0f - held[i], slab, spike) * w[i], per_datum, g[i]);
    } else {
        // (slab + o spike) / (1 + o) with o = (1 - r) / r. At e^20 only the spike is left of it: it has the larger precision.
        float spike = t->spike * per_datum, slab = t->slab * per_datum, log_odds = -t->log_odds, slope = -t->slope;
        for (int i = 0; i < n; i++) {
            float x = __builtin_fmaf(slope, w[i] * w[i], log_odds);
            force[i] = exp_clamped(x > 20.0f ? 20.0f : x);
        }
        for (int i = 0; i < n; i++)
            force[i] = __builtin_fmaf(__builtin_fmaf(force[i], spike, slab) / (1.0f + force[i]), w[i], g[i]);
    }
}

// Sums over weights that are alive (null: all): r, r w^2, 1, w^2 - r w^2. Floats within a chunk, in lanes; then doubles.
void mixture_sums(const float *weight, const uint8_t *alive, int64_t size, float log_odds, float slope, double *sums) {
    float inclusion[CHUNK];
    for (int64_t at = 0; at < size; at += CHUNK) {
        const float *restrict w = weight + at;
        int n = (int)(size - at < CHUNK ? size - at : CHUNK);
        chunk_inclusion(log_odds, slope, n, w, inclusion);
        float lanes[4][8] = {{0}};
        for (int i = 0; i < n; i += 8)
            for (int j = 0; j < 8 && i + j < n; j++) {
                float here = alive ? (float)alive[at + i + j] : 1.0f, r = here * inclusion[i + j];
                float square = w[i + j] * w[i + j];
                lanes[0][j] += r;
                lanes[1][j] += r * square;
                lanes[2][j] += here;
                lanes[3][j] += (here - r) * square;
            }
        for (int k = 0; k < 4; k++)
            for (int j = 0; j < 8; j++) sums[k] += (double)lanes[k][j];
    }
}

// ---------------------------------------------------------------- updates

enum { NONE, NORMAL, SIGN };

typedef struct {
    key_t_ key;
    int32_t noise;
    float lr, momentum, rescale, noise_scale, per_datum;
} settings_t;

INLINE const float *chunk_noise(const settings_t *s, uint64_t offset, int n, float *space) {
    if (s->noise == NORMAL) return chunk_normals(s->key, offset, n, space);
    if (s->noise == SIGN) return chunk_signs(s->key, offset, n, space);
    for (int i = 0; i < n; i++) space[i] = 0.0f;
    return space;
}

// b <- beta b + force - scale M^(1/2) xi;  w <- w - l M^-1 b
INLINE void sghmc_chunk(const tensor_t *t, const settings_t *s, int64_t at, int n, const float *force, const float *z) {
    float *restrict w = t->weight + at, *restrict b = t->buffer + at;
    float decay = s->rescale * s->momentum, scale = -s->noise_scale, lr = -s->lr;
    if (t->mass) {
        const float *restrict mass = t->mass + at;
        for (int i = 0; i < n; i++) {
            b[i] = __builtin_fmaf(scale * sqrtf(mass[i]), z[i], __builtin_fmaf(decay, b[i], force[i]));
            w[i] = __builtin_fmaf(lr, b[i] / mass[i], w[i]);
        }
    } else {
        for (int i = 0; i < n; i++) {
            b[i] = __builtin_fmaf(scale, z[i], __builtin_fmaf(decay, b[i], force[i]));
            w[i] = __builtin_fmaf(lr, b[i], w[i]);
        }
    }
    if (t->mask) {
        const uint8_t *restrict mask = t->mask + at;
        for (int i = 0; i < n; i++) {
            b[i] = mask[i] ? b[i] : 0.0f;
            w[i] = mask[i] ? w[i] : 0.0f;
        }
    }
}

// w <- w - l M^-1 force + scale M^-1/2 xi
INLINE void sgld_chunk(const tensor_t *t, const settings_t *s, int64_t at, int n, const float *force, const float *z) {
    float *restrict w = t->weight + at;
    float scale = s->noise_scale, lr = -s->lr;
    if (t->mass) {
        const float *restrict mass = t->mass + at;
        for (int i = 0; i < n; i++) {
            float drifted = __builtin_fmaf(lr, force[i] / mass[i], w[i]);
            w[i] = __builtin_fmaf(scale / sqrtf(mass[i]), z[i], drifted);
        }
    } else {
        for (int i = 0; i < n; i++) w[i] = __builtin_fmaf(scale, z[i], __builtin_fmaf(lr, force[i], w[i]));
    }
    if (t->mask) {
        const uint8_t *restrict mask = t->mask + at;
        for (int i = 0; i < n; i++) w[i] = mask[i] ? w[i] : 0.0f;
    }
}

typedef void update_t(const tensor_t *, const settings_t *, int64_t, int, const float *, const float *);

// Update the weights first, ..., last - 1 of all tensors laid end to end.
INLINE void step_range(const tensor_t *tensors, int count, const settings_t *s, int64_t first, int64_t last, update_t update) {
    float noise[SPACE], force[CHUNK];
    int64_t start = 0;
    for (int k = 0; k < count && start < last; k++) {
        const tensor_t *t = &tensors[k];
        int64_t from = first > start ? first - start : 0;
        int64_t to = last - start < t->size ? last - start : t->size;
        for (int64_t at = from; at < to;) {
            int n = (int)(to - at < CHUNK - 4 ? to - at : CHUNK - 4);
            const float *z = t->noise && s->noise ? t->noise + at : chunk_noise(s, t->offset + (uint64_t)at, n, noise);
            chunk_force(t, at, n, s->per_datum, force);
            update(t, s, at, n, force, z);
            at += n;
        }
        start += t->size;
    }
}

// Whether the gradients of the weights first, ..., last - 1 are finite: an exponent of ones is an infinity or a NaN.
INLINE int finite_range(const tensor_t *tensors, int count, int64_t first, int64_t last) {
    int64_t start = 0;
    for (int k = 0; k < count && start < last; start += tensors[k++].size) {
        int64_t from = first > start ? first - start : 0;
        int64_t to = last - start < tensors[k].size ? last - start : tensors[k].size;
        const uint32_t *bits = (const uint32_t *)tensors[k].gradient;
        for (int64_t at = from; at < to; at += CHUNK) {
            uint32_t found = 0;
            for (int64_t i = at; i < (to - at < CHUNK ? to : at + CHUNK); i++)
                found |= (bits[i] & 0x7f800000u) == 0x7f800000u;
            if (found) return 0;
        }
    }
    return 1;
}

int all_finite(const tensor_t *tensors, int count, int64_t total, int threads) {
    int finite = 1;
#pragma omp parallel for num_threads(threads) schedule(static, 1) reduction(&& : finite)
    for (int k = 0; k < threads; k++)
        finite = finite && finite_range(tensors, count, part(total, k, threads), part(total, k + 1, threads));
    return finite;
}

void sghmc_step(const tensor_t *tensors, int count, const settings_t *s, int64_t total, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int k = 0; k < threads; k++)
        step_range(tensors, count, s, part(total, k, threads), part(total, k + 1, threads), sghmc_chunk);
}

void sgld_step(const tensor_t *tensors, int count, const settings_t *s, int64_t total, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int k = 0; k < threads; k++)
        step_range(tensors, count, s, part(total, k, threads), part(total, k + 1, threads), sgld_chunk);
}

// ---------------------------------------------------------------- variational factors

// Equations: baselines/variational/statistics.py. `logits` is null where there are no gates; then `m` is not written, and
// of each four rows of sums (a, b, c, e) only the first two are. The bias is null where there is none.
void factor_statistics(const float *mean, const float *log_std, const float *logits, const float *bias_mean,
                       const float *bias_log_std, int64_t rows, int64_t size, float *m, float *w, float *bias_variance,
                       float *sums, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t j = 0; j < rows; j++) {
        const float *restrict mu = mean + j * size, *restrict rho = log_std + j * size;
        float *restrict variance = w + j * size, a = 0, b = 0, c = 0, e = 0;
        if (!logits) {
#pragma omp simd reduction(+ : a, b)
            for (int64_t i = 0; i < size; i++) {
                variance[i] = exp_clamped(2.0f * rho[i]);
                a += rho[i];
                b += __builtin_fmaf(mu[i], mu[i], variance[i]);
            }
        } else {
            const float *restrict lambda = logits + j * size;
            float *restrict first = m + j * size;
#pragma omp simd reduction(+ : a, b, c, e)
            for (int64_t i = 0; i < size; i++) {
                float g = 1.0f / (1.0f + exp_clamped(-lambda[i])), closed = 1.0f - g;
                float slab = g * exp_clamped(2.0f * rho[i]);
                first[i] = g * mu[i];
                variance[i] = __builtin_fmaf(first[i], closed * mu[i], slab);
                a += g * rho[i];
                b += __builtin_fmaf(first[i], mu[i], slab);
                c += g;
                e += log_of(g) - closed * lambda[i];
            }
            sums[2 * rows + j] = c;
            sums[3 * rows + j] = e;
        }
        if (bias_mean) {
            bias_variance[j] = exp_clamped(2.0f * bias_log_std[j]);
            a += bias_log_std[j];
            b += __builtin_fmaf(bias_mean[j], bias_mean[j], bias_variance[j]);
        }
        sums[j] = a;
        sums[rows + j] = b;
    }
}

// In place of the gradients of m, w and the bias's moments.
void factor_gradient(const float *mean, const float *log_std, const float *logits, const float *bias_mean,
                     const float *bias_log_std, int64_t rows, int64_t size, float *dm, float *dw, float *dbias_m,
                     float *dbias_w, const float *dsums, float *dlogits, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t j = 0; j < rows; j++) {
        const float *restrict mu = mean + j * size, *restrict rho = log_std + j * size;
        float *restrict dmu = dm + j * size, *restrict drho = dw + j * size, da = dsums[j], db = dsums[rows + j];
        if (!logits) {
#pragma omp simd
            for (int64_t i = 0; i < size; i++) {
                dmu[i] = __builtin_fmaf(2.0f * db, mu[i], dmu[i]);
                drho[i] = __builtin_fmaf(2.0f * exp_clamped(2.0f * rho[i]), drho[i] + db, da);
            }
        } else {
            const float *restrict lambda = logits + j * size;
            float *restrict dlambda = dlogits + j * size, dc = dsums[2 * rows + j], de = dsums[3 * rows + j];
#pragma omp simd
            for (int64_t i = 0; i < size; i++) {
                float g = 1.0f / (1.0f + exp_clamped(-lambda[i])), closed = 1.0f - g;
                float v = exp_clamped(2.0f * rho[i]), square = mu[i] * mu[i], q = v + square;
                float rise = __builtin_fmaf(mu[i], dmu[i], __builtin_fmaf(rho[i], da, __builtin_fmaf(q, db, dc)));
                rise = __builtin_fmaf(__builtin_fmaf(-2.0f * g, square, q), drho[i], __builtin_fmaf(lambda[i], de, rise));
                dlambda[i] = g * closed * rise;
                dmu[i] = g * __builtin_fmaf(2.0f * mu[i], __builtin_fmaf(closed, drho[i], db), dmu[i]);
                drho[i] = g * __builtin_fmaf(2.0f * v, drho[i] + db, da);
            }
        }
        if (bias_mean) {
            dbias_m[j] = __builtin_fmaf(2.0f * db, bias_mean[j], dbias_m[j]);
            dbias_w[j] = __builtin_fmaf(2.0f * exp_clamped(2.0f * bias_log_std[j]), dbias_w[j] + db, da);
        }
    }
}

// Equations: baselines/variational/evidence.py, entries without groups. Sums of log sigma, of q and of log(1 + e^l) with
// l = odds + slope q.
void spike_sums(const float *mean, const float *log_std, int64_t size, float odds, float slope, double *sums, int threads) {
    double all_a = 0, all_b = 0, all_c = 0;
#pragma omp parallel for num_threads(threads) schedule(static) reduction(+ : all_a, all_b, all_c)
    for (int64_t at = 0; at < size; at += CHUNK) {
        int n = (int)(size - at < CHUNK ? size - at : CHUNK);
        const float *restrict mu = mean + at, *restrict rho = log_std + at;
        float a = 0, b = 0, c = 0;
#pragma omp simd reduction(+ : a, b, c)
        for (int i = 0; i < n; i++) {
            float q = __builtin_fmaf(mu[i], mu[i], exp_clamped(2.0f * rho[i]));
            float l = __builtin_fmaf(slope, q, odds), large = l > 0.0f ? l : 0.0f;
            a += rho[i];
            b += q;
            c += large + log_of(1.0f + exp_clamped(l - 2.0f * large));
        }
        all_a += a;
        all_b += b;
        all_c += c;
    }
    sums[0] = all_a;
    sums[1] = all_b;
    sums[2] = all_c;
}

// dmu = scale p mu and dlog sigma = scale (p sigma^2 - 1) with p = sigmoid(l) slab + sigmoid(-l) spike.
void spike_gradient(const float *mean, const float *log_std, int64_t size, float odds, float slope, float spike, float slab,
                    float scale, float *dmean, float *dlog_std, int threads) {
#pragma omp parallel for simd num_threads(threads) schedule(static)
    for (int64_t i = 0; i < size; i++) {
        float v = exp_clamped(2.0f * log_std[i]), q = __builtin_fmaf(mean[i], mean[i], v);
        float odds_against = exp_clamped(-__builtin_fmaf(slope, q, odds)), r = 1.0f / (1.0f + odds_against);
        float p = mean_precision(r, odds_against * r, slab, spike);
        dmean[i] = scale * p * mean[i];
        dlog_std[i] = scale * __builtin_fmaf(p, v, -1.0f);
    }
}

// Equations: baselines/variational/local.py. In: the centres c and variances d^2 of outputs (examples, nodes). Out: h in place
// of c, the slope eps / (2 d) in place of d^2, and s h where there is a scale (else null).
void local_draw(const key_t_ *key, const float *scale, int64_t examples, int64_t nodes, float floor, float *centre,
                float *variance, float *out, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int k = 0; k < threads; k++) {
        int64_t first = part(examples, k, threads), last = part(examples, k + 1, threads);
        float space[SPACE];
        for (int64_t at = first * nodes; at < last * nodes;) {
            int n = (int)(last * nodes - at < CHUNK - 4 ? last * nodes - at : CHUNK - 4);
            const float *noise = chunk_normals(*key, (uint64_t)at, n, space);
            float *restrict h = centre + at, *restrict slope = variance + at;
#pragma omp simd
            for (int i = 0; i < n; i++) {
                float std = sqrtf(slope[i] > floor ? slope[i] : floor);
                h[i] = __builtin_fmaf(std, noise[i], h[i]);
                slope[i] = 0.5f * noise[i] / std;
            }
            at += n;
        }
        for (int64_t start = first * nodes; scale && start < last * nodes; start += nodes)
#pragma omp simd
            for (int64_t j = 0; j < nodes; j++) out[start + j] = scale[j] * centre[start + j];
    }
}

// Gradients of c and d^2, and the sums of these and of dout h over the examples; a thread takes some of the nodes.
void local_gradient(const float *dout, const float *h, const float *slope, const float *scale, int64_t examples,
                    int64_t nodes, float *dcentre, float *dvariance, float *sums, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int k = 0; k < threads; k++) {
        int64_t first = part(nodes, k, threads), last = part(nodes, k + 1, threads);
        float *restrict of_centre = sums, *restrict of_variance = sums + nodes, *restrict of_scale = sums + 2 * nodes;
        for (int64_t j = first; j < last; j++) of_centre[j] = of_variance[j] = of_scale[j] = 0.0f;
        for (int64_t start = 0; start < examples * nodes; start += nodes)
#pragma omp simd
            for (int64_t j = first; j < last; j++) {
                float d = dout[start + j], dc = scale ? scale[j] * d : d, dv = dc * slope[start + j];
                dcentre[start + j] = dc;
                dvariance[start + j] = dv;
                of_centre[j] += dc;
                of_variance[j] += dv;
                if (scale) of_scale[j] = __builtin_fmaf(d, h[start + j], of_scale[j]);
            }
    }
}
