/* Products of bytes, four groups of 32 weights at a time (rows_int.inc says how they lie). */
#include "simd_int_x86.h"

typedef __m512i vb; /* bytes */
typedef __m512i vi; /* int32 */

/* Signed weights become unsigned by adding this. */
enum { SIGNED_OFFSET = 128 };

/* Where the k-th word of `words` lies in two loads of 64 bytes, the other `second` bytes on. */
static inline short word_at(int k, int stride, int offset, int each, int step, int second) {
    int at = k / each % 4 * stride + offset + k % each * step;
    return (short)(at <= 62 ? at / 2 : 32 + (at - second) / 2);
}

/* Of four blocks of `stride` bytes, `each` words of 16 bits of the first, then the second ...: those at offset,
 * offset + step ... Two loads have them all: of blocks larger than 32 bytes only the scales, at their beginning, are
 * wanted. */
#define WORD(k) word_at(k, stride, offset, each, step, second)
#define WORDS(k) WORD(k + 7), WORD(k + 6), WORD(k + 5), WORD(k + 4), WORD(k + 3), WORD(k + 2), WORD(k + 1), WORD(k)
static inline vb words(const uint8_t *block, int stride, int offset, int each, int step) {
    const int second = stride > 32 ? stride + 22 : 4 * stride - 64;
    vb index = _mm512_set_epi16(WORDS(24), WORDS(16), WORDS(8), WORDS(0)), a = _mm512_loadu_si512(block);
    if (3 * stride + offset + (each - 1) * step <= 62) return _mm512_permutexvar_epi16(index, a);
    return _mm512_permutex2var_epi16(a, index, _mm512_loadu_si512(block + second));
}
#undef WORD
#undef WORDS

/* Sixteen bytes of each of four blocks. */
static inline vb vb_gather(const uint8_t *block, int stride, int offset) {
    if (stride <= 32) return words(block, stride, offset, 8, 2);
    const uint8_t *at = block + offset;
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
static inline vb vb_bits(const uint8_t *block, int stride, int offset, int value) {
    const vb bytes = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1));
    const vb bits = _mm512_set1_epi64((long long)0x8040201008040201);
    vb each = _mm512_shuffle_epi8(words(block, stride, offset, 8, 0), bytes);
    return _mm512_maskz_set1_epi8(_mm512_test_epi8_mask(each, bits), (char)value);
}
static inline vb vb_signed(vb a) { return _mm512_xor_si512(a, _mm512_set1_epi8(-128)); }

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
/* -offset times the sums of the activations: what a product by (weight + offset) starts from */
static inline vi vi_start(int offset, vb x) {
    return _mm512_sub_epi32(vi_zero(), vi_dot(vi_zero(), _mm512_set1_epi8((char)offset), x));
}
static inline vi vi_add(vi a, vi b) { return _mm512_add_epi32(a, b); }
static inline vf vf_of(vi a) { return _mm512_cvtepi32_ps(a); }

/* One number a group, on all its lanes. */
static inline vf vf_spread(const float *at) {
    return _mm512_permutexvar_ps(_mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3),
                                 _mm512_castps128_ps512(_mm_loadu_ps(at)));
}
/* fp16 at `offset` of each block */
static inline vf vf_spread_halves(const uint8_t *block, int stride, int offset) {
    return _mm512_cvtph_ps(_mm512_castsi512_si256(words(block, stride, offset, 4, 0)));
}
