/* Sixteen floats at a time. */
#include <immintrin.h>
#include <stdint.h>

typedef __m512 vf;
enum { LANES = 16 };
#define REGISTERS 32

static inline vf vf_zero(void) { return _mm512_setzero_ps(); }
static inline vf vf_set(float value) { return _mm512_set1_ps(value); }
static inline vf vf_load(const void *at) { return _mm512_loadu_ps(at); }
static inline void vf_store(float *at, vf a) { _mm512_storeu_ps(at, a); }
static inline vf vf_add(vf a, vf b) { return _mm512_add_ps(a, b); }
static inline vf vf_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
static inline vf vf_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
/* The lesser, the greater, b where they are alike or one is NaN; `yes` where a <= b. */
static inline vf vf_min(vf a, vf b) { return _mm512_min_ps(a, b); }
static inline vf vf_max(vf a, vf b) { return _mm512_max_ps(a, b); }
static inline vf vf_where(vf a, vf b, vf yes, vf no) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LE_OQ), no, yes);
}
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsign-conversion" /* in masks of macros that are functions when optimised */
/* To the nearest integer, the even one of two. */
static inline vf vf_round(vf a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
#pragma GCC diagnostic pop
static inline float vf_sum(vf a) { return _mm512_reduce_add_ps(a); }
static inline vf vf_load_f16(const void *at) { return _mm512_cvtph_ps(_mm256_loadu_si256(at)); }
static inline void vf_store_f16(void *at, vf a) {
    _mm256_storeu_si256(at, _mm512_maskz_cvtps_ph(0xffff, a, _MM_FROUND_TO_NEAREST_INT));
}
/* Times 2^-8, and 480 for NaN: all but the sign goes to where a half ends its exponent and begins its mantissa. */
static inline void vf_load_two_f8(const void *at, vf out[2]) {
    __m512i wide = _mm512_slli_epi16(_mm512_cvtepi8_epi16(_mm256_loadu_si256(at)), 7);
    __m512i halves = _mm512_and_si512(wide, _mm512_set1_epi16((short)0xbfff));
    out[0] = _mm512_cvtph_ps(_mm512_castsi512_si256(halves));
    out[1] = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(halves, 1));
}
static inline vf vf_load_bf16(const void *at) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(at)), 16));
}
