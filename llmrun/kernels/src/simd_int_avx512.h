/* Products of bytes, four groups of 32 weights at a time (rows_int.inc says how they lie). */
#include "simd_int_x86.h"

typedef __m512i vb; /* bytes */
typedef __m512i vi; /* int32 */
typedef __m128 vg;  /* a float for each group */

/* Signed weights become unsigned by adding this. */
enum { SIGNED_OFFSET = 128 };

/* Four neighbouring blocks of at most 32 bytes in two registers, the second of which begins where second_at says. Of
 * larger ones only their place. Loads are what a step costs most: these are shared by all that is taken from them. */
typedef struct {
    const uint8_t *at;
    __m512i first, second;
} step_blocks;

ALWAYS_INLINE int second_at(int stride) {
    int rest = 4 * stride - 64;
    return 4 * stride - (rest <= 8 ? 8 : rest <= 16 ? 16 : 32);
}

ALWAYS_INLINE step_blocks blocks_at(const uint8_t *at, int stride) {
    step_blocks b = {.at = at};
    if (stride > 32) return b;
    const uint8_t *second = at + second_at(stride);
    b.first = _mm512_loadu_si512(at);
    if (4 * stride - 64 <= 8) {
        b.second = _mm512_zextsi128_si512(_mm_loadl_epi64((const __m128i *)(const void *)second));
    } else if (4 * stride - 64 <= 16) {
        b.second = _mm512_zextsi128_si512(sixteen(second));
    } else {
        b.second = _mm512_zextsi256_si512(_mm256_loadu_si256((const __m256i *)(const void *)second));
    }
    __asm__("" : "+v"(b.first)); /* the compiler would rather load it again */
    return b;
}

/* Where the k-th word of `words` lies in the two. */
ALWAYS_INLINE short word_at(int k, int stride, int offset, int each, int step) {
    int at = k / each % 4 * stride + offset + k % each * step;
    return (short)(at <= 62 ? at / 2 : 32 + (at - second_at(stride)) / 2);
}

/* Of four blocks of `stride` bytes, `each` words of 16 bits of the first, then the second ...: those at offset,
 * offset + step ... */
#define WORD(k) word_at(k, stride, offset, each, step)
#define WORDS(k) WORD(k + 7), WORD(k + 6), WORD(k + 5), WORD(k + 4), WORD(k + 3), WORD(k + 2), WORD(k + 1), WORD(k)
ALWAYS_INLINE vb words(step_blocks b, int stride, int offset, int each, int step) {
    vb index = _mm512_set_epi16(WORDS(24), WORDS(16), WORDS(8), WORDS(0));
    if (3 * stride + offset + (each - 1) * step <= 62) return _mm512_permutexvar_epi16(index, b.first);
    return _mm512_permutex2var_epi16(b.first, index, b.second);
}
#undef WORD
#undef WORDS

/* Sixteen bytes of each of four blocks. */
ALWAYS_INLINE vb vb_gather(step_blocks b, int stride, int offset) {
    if (stride <= 32) return words(b, stride, offset, 8, 2);
    const uint8_t *at = b.at + offset;
    vb a = _mm512_castsi128_si512(sixteen(at));
    a = _mm512_inserti32x4(a, sixteen(at + stride), 1);
    a = _mm512_inserti32x4(a, sixteen(at + 2 * stride), 2);
    return _mm512_inserti32x4(a, sixteen(at + 3 * stride), 3);
}
/* The same sixteen bytes for each group. */
static inline vb vb_same(const uint8_t *at) { return _mm512_broadcast_i32x4(sixteen(at)); }
/* Of 64 bytes, the sixteens h, h, h + 2, h + 2 for the four groups; h: 0 or 1 */
static inline vb vb_twice(const uint8_t *at, int h) {
    vb a = _mm512_loadu_si512(at);
    return h ? _mm512_shuffle_i64x2(a, a, 0xf5) : _mm512_shuffle_i64x2(a, a, 0xa0);
}
/* h, h + 2, h, h + 2; first: which of the format's groups comes first, here always an even one */
static inline vb vb_alternate(const uint8_t *at, int h, int first) {
    (void)first;
    vb a = _mm512_loadu_si512(at);
    return h ? _mm512_shuffle_i64x2(a, a, 0xdd) : _mm512_shuffle_i64x2(a, a, 0x88);
}
static inline vb vb_and(vb a, int mask) { return _mm512_and_si512(a, _mm512_set1_epi8((char)mask)); }
static inline vb vb_or(vb a, vb b) { return _mm512_or_si512(a, b); }
/* Shifts bring in bits of the neighbouring byte: mask them away. */
static inline vb vb_right(vb a, int bits) { return _mm512_srli_epi32(a, (unsigned)bits); }
static inline vb vb_left(vb a, int bits) { return _mm512_slli_epi32(a, (unsigned)bits); }
static inline vb vb_right_each(vb a, int b0, int b1, int b2, int b3) {
    return _mm512_srlv_epi32(a, _mm512_setr_epi32(b0, b0, b0, b0, b1, b1, b1, b1, b2, b2, b2, b2, b3, b3, b3, b3));
}
/* Of each block 16 bits: byte i is `value` where bit i is set, 0 elsewhere. */
ALWAYS_INLINE vb vb_bits(step_blocks b, int stride, int offset, int value) {
    const vb bytes = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1));
    const vb bits = _mm512_set1_epi64((long long)0x8040201008040201);
    vb each = _mm512_shuffle_epi8(words(b, stride, offset, 8, 0), bytes);
    return _mm512_maskz_set1_epi8(_mm512_test_epi8_mask(each, bits), (char)value);
}
static inline vb vb_signed(vb a) { return _mm512_xor_si512(a, _mm512_set1_epi8(-128)); }

static inline vb vb_load(const void *at) { return _mm512_loadu_si512(at); }
static inline void vb_store(void *to, vb a) { _mm512_storeu_si512(to, a); }
/* The activations of the groups at `x`. */
static inline void vb_activations(const int8_t *x, vb *u, vb *v) {
    __m512i a = _mm512_loadu_si512(x), b = _mm512_loadu_si512(x + 64);
    *u = _mm512_shuffle_i64x2(a, b, 0x88);
    *v = _mm512_shuffle_i64x2(a, b, 0xdd);
}
/* start + the sums of four products of unsigned and signed bytes */
static inline vi vi_dot(vi start, vb u, vb x) { return _mm512_dpbusd_epi32(start, u, x); }
static inline vi vi_dot_pair(vi start, vb u, vb v, vb xu, vb xv) { return vi_dot(vi_dot(start, u, xu), v, xv); }
static inline vi vi_dot_signed(vi start, vb u, vb v, vb xu, vb xv) { return vi_dot_pair(start, u, v, xu, xv); }
static inline vi vi_zero(void) { return _mm512_setzero_si512(); }
static inline vi vi_times_256(vi a) { return _mm512_slli_epi32(a, 8); }
static inline vi vi_add(vi a, vi b) { return _mm512_add_epi32(a, b); }
static inline vf vf_of(vi a) { return _mm512_cvtepi32_ps(a); }

static inline vg vg_zero(void) { return _mm_setzero_ps(); }
static inline vg vg_load(const float *at) { return _mm_loadu_ps(at); }
static inline vg vg_mul(vg a, vg b) { return _mm_mul_ps(a, b); }
static inline vg vg_fma(vg a, vg b, vg c) { return _mm_fmadd_ps(a, b, c); }
static inline float vg_sum(vg a) { return a[0] + a[1] + (a[2] + a[3]); }
/* On all lanes of the groups. */
static inline vf vf_spread(vg a) {
    const __m512i lanes = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    return _mm512_permutexvar_ps(lanes, _mm512_castps128_ps512(a));
}
/* fp16 at `offset` of each block */
ALWAYS_INLINE vg vg_halves(step_blocks b, int stride, int offset) {
    if (stride <= 32) return _mm_cvtph_ps(_mm512_castsi512_si128(words(b, stride, offset, 1, 0)));
    const uint8_t *at = b.at + offset;
    uint64_t low = bits16_at(at) | (uint32_t)bits16_at(at + stride) << 16;
    uint64_t high = bits16_at(at + 2 * stride) | (uint32_t)bits16_at(at + 3 * stride) << 16;
    return _mm_cvtph_ps(_mm_cvtsi64_si128((long long)(low | high << 32)));
}
