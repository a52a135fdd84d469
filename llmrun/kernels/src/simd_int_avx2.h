/* Products of bytes, two groups of 32 weights at a time (rows_int.inc says how they lie). */
#include "simd_int_x86.h"

typedef __m256i vb; /* bytes */
typedef __m256i vi; /* int32 */
typedef __m128 vg;  /* a float for each group, and zeros */

enum { SIGNED_OFFSET = 0 };

/* What a step's blocks are taken from: here where they begin. */
typedef const uint8_t *step_blocks;
ALWAYS_INLINE step_blocks blocks_at(const uint8_t *at, int stride) {
    (void)stride;
    return at;
}

/* Sixteen bytes of each of two blocks of `stride` bytes. */
ALWAYS_INLINE vb vb_gather(step_blocks block, int stride, int offset) {
    const uint8_t *at = block + offset;
    return _mm256_inserti128_si256(_mm256_castsi128_si256(sixteen(at)), sixteen(at + stride), 1);
}
/* The same sixteen bytes for each group. */
static inline vb vb_same(const uint8_t *at) { return _mm256_broadcastsi128_si256(sixteen(at)); }
/* Of 32 bytes, the sixteen h (0 or 1) for both groups. */
static inline vb vb_twice(const uint8_t *at, int h) { return vb_same(at + 16 * h); }
/* Of 64 bytes, the sixteens h, h + 2; first: which of the format's groups comes first, here always an even one */
static inline vb vb_alternate(const uint8_t *at, int h, int first) {
    (void)first;
    return vb_gather(at, 32, 16 * h);
}
static inline vb vb_and(vb a, int mask) { return _mm256_and_si256(a, _mm256_set1_epi8((char)mask)); }
static inline vb vb_or(vb a, vb b) { return _mm256_or_si256(a, b); }
/* Shifts bring in bits of the neighbouring byte: mask them away. */
static inline vb vb_right(vb a, int bits) { return _mm256_srli_epi32(a, bits); }
static inline vb vb_left(vb a, int bits) { return _mm256_slli_epi32(a, bits); }
static inline vb vb_right_each(vb a, int b0, int b1, int b2, int b3) {
    (void)b2, (void)b3;
    return _mm256_srlv_epi32(a, _mm256_setr_epi32(b0, b0, b0, b0, b1, b1, b1, b1));
}
/* Of each block 16 bits: byte i is `value` where bit i is set, 0 elsewhere. */
ALWAYS_INLINE vb vb_bits(step_blocks block, int stride, int offset, int value) {
    const uint8_t *at = block + offset;
    const __m256i bytes = _mm256_setr_epi64x(0, 0x0101010101010101, 0, 0x0101010101010101);
    const __m256i bits = _mm256_set1_epi64x((long long)0x8040201008040201);
    __m256i words = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_cvtsi32_si128(bits16_at(at))),
                                            _mm_cvtsi32_si128(bits16_at(at + stride)), 1);
    __m256i set = _mm256_and_si256(_mm256_shuffle_epi8(words, bytes), bits);
    return vb_and(_mm256_cmpeq_epi8(set, bits), value);
}
static inline vb vb_signed(vb a) { return a; }

static inline vb vb_load(const void *at) { return _mm256_loadu_si256((const __m256i *)at); }
static inline void vb_store(void *to, vb a) { _mm256_storeu_si256((__m256i *)to, a); }
/* The activations of the groups at `x`. */
static inline void vb_activations(const int8_t *x, vb *u, vb *v) {
    __m256i a = _mm256_loadu_si256((const __m256i *)x), b = _mm256_loadu_si256((const __m256i *)(x + 32));
    *u = _mm256_permute2x128_si256(a, b, 0x20);
    *v = _mm256_permute2x128_si256(a, b, 0x31);
}
static inline vi vi_times_256(vi a) { return _mm256_slli_epi32(a, 8); }
static inline vi vi_add(vi a, vi b) { return _mm256_add_epi32(a, b); }
static inline vi vi_of_pairs(__m256i pairs) { return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)); }
/* start + the sums of four products. Two products of a weight up to 63 and an activation up to 127 in size make 16,002,
 * four 32,004: they fit 16 bits. */
static inline vi vi_dot(vi start, vb u, vb x) { return vi_add(start, vi_of_pairs(_mm256_maddubs_epi16(u, x))); }
static inline vi vi_dot_pair(vi start, vb u, vb v, vb xu, vb xv) {
    __m256i pairs = _mm256_add_epi16(_mm256_maddubs_epi16(u, xu), _mm256_maddubs_epi16(v, xv));
    return vi_add(start, vi_of_pairs(pairs));
}
/* The sign moves from the weight to the activation: 2 * 128 * 127 still fits 16 bits, 4 do not. */
static inline vi vi_dot_signed(vi start, vb u, vb v, vb xu, vb xv) {
    start = vi_dot(start, _mm256_abs_epi8(u), _mm256_sign_epi8(xu, u));
    return vi_dot(start, _mm256_abs_epi8(v), _mm256_sign_epi8(xv, v));
}
static inline vi vi_zero(void) { return _mm256_setzero_si256(); }
static inline vf vf_of(vi a) { return _mm256_cvtepi32_ps(a); }

static inline vg vg_zero(void) { return _mm_setzero_ps(); }
static inline vg vg_load(const float *at) {
    return _mm_castsi128_ps(_mm_loadl_epi64((const __m128i *)(const void *)at));
}
static inline vg vg_mul(vg a, vg b) { return _mm_mul_ps(a, b); }
static inline vg vg_fma(vg a, vg b, vg c) { return _mm_fmadd_ps(a, b, c); }
static inline float vg_sum(vg a) { return a[0] + a[1]; }
/* On all lanes of the groups. */
static inline vf vf_spread(vg a) {
    return _mm256_permutevar8x32_ps(_mm256_castps128_ps256(a), _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1));
}
/* fp16 at `offset` of each block */
ALWAYS_INLINE vg vg_halves(step_blocks block, int stride, int offset) {
    const uint8_t *at = block + offset;
    uint32_t two = bits16_at(at) | (uint32_t)bits16_at(at + stride) << 16;
    return _mm_cvtph_ps(_mm_cvtsi32_si128((int)two));
}
