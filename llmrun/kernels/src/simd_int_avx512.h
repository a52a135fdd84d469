/* Products of bytes, four groups of 32 weights at a time (rows_int.inc says how they lie). */
#include <immintrin.h>
#include <stdint.h>

#include "convert.h"

typedef __m512i vb; /* bytes */
typedef __m512i vi; /* int32 */

/* Signed weights become unsigned by adding this. */
enum { SIGNED_OFFSET = 128 };

static inline void prefetch(const void *at) { _mm_prefetch(at, _MM_HINT_T0); }

static inline __m128i sixteen(const uint8_t *at) { return _mm_loadu_si128((const __m128i *)at); }

/* Sixteen bytes a group, `stride` apart. */
static inline vb vb_gather(const uint8_t *at, long stride) {
    vb a = _mm512_castsi128_si512(sixteen(at));
    a = _mm512_inserti32x4(a, sixteen(at + stride), 1);
    a = _mm512_inserti32x4(a, sixteen(at + 2 * stride), 2);
    return _mm512_inserti32x4(a, sixteen(at + 3 * stride), 3);
}
/* The same sixteen bytes for each group. */
static inline vb vb_same(const uint8_t *at) { return _mm512_broadcast_i32x4(sixteen(at)); }
/* at, at, at + 32, at + 32 */
static inline vb vb_twice(const uint8_t *at) {
    return _mm512_inserti64x4(_mm512_broadcast_i32x4(sixteen(at)), _mm256_broadcastsi128_si256(sixteen(at + 32)), 1);
}
/* at, at + 32, at, at + 32; first: the group that lane 0 has, here always even */
static inline vb vb_alternate(const uint8_t *at, int first) {
    (void)first;
    __m256i two = _mm256_inserti128_si256(_mm256_castsi128_si256(sixteen(at)), sixteen(at + 32), 1);
    return _mm512_broadcast_i64x4(two);
}
static inline vb vb_and(vb a, int mask) { return _mm512_and_si512(a, _mm512_set1_epi8((char)mask)); }
static inline vb vb_or(vb a, vb b) { return _mm512_or_si512(a, b); }
/* Shifts bring in bits of the neighbouring byte: mask them away. */
static inline vb vb_right(vb a, int bits) { return _mm512_srli_epi32(a, (unsigned)bits); }
static inline vb vb_left(vb a, int bits) { return _mm512_slli_epi32(a, (unsigned)bits); }
static inline vb vb_right_each(vb a, int b0, int b1, int b2, int b3) {
    return _mm512_srlv_epi32(a, _mm512_setr_epi32(b0, b0, b0, b0, b1, b1, b1, b1, b2, b2, b2, b2, b3, b3, b3, b3));
}
/* Of each group 16 bits, `stride` apart: byte i is `value` where bit i is set, 0 elsewhere. */
static inline vb vb_bits(const uint8_t *at, long stride, int value) {
    uint64_t low = bits16_at(at) | (uint32_t)bits16_at(at + stride) << 16;
    uint64_t high = bits16_at(at + 2 * stride) | (uint32_t)bits16_at(at + 3 * stride) << 16;
    return _mm512_maskz_set1_epi8(low | high << 32, (char)value);
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
static inline vf vf_spread_halves(const uint8_t *at, long stride) {
    uint64_t low = bits16_at(at) | (uint32_t)bits16_at(at + stride) << 16;
    uint64_t high = bits16_at(at + 2 * stride) | (uint32_t)bits16_at(at + 3 * stride) << 16;
    __m128 four = _mm_cvtph_ps(_mm_cvtsi64_si128((long long)(low | high << 32)));
    return _mm512_permutexvar_ps(_mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3),
                                 _mm512_castps128_ps512(four));
}
