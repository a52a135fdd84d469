/* Eight floats at a time. */
#include <immintrin.h>
#include <stdint.h>

typedef __m256 vf;
enum { LANES = 8 };
#define REGISTERS 16

static inline vf vf_zero(void) { return _mm256_setzero_ps(); }
static inline vf vf_set(float value) { return _mm256_set1_ps(value); }
static inline vf vf_load(const void *at) { return _mm256_loadu_ps(at); }
static inline void vf_store(float *at, vf a) { _mm256_storeu_ps(at, a); }
static inline vf vf_add(vf a, vf b) { return _mm256_add_ps(a, b); }
static inline vf vf_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
static inline vf vf_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
/* The lesser, the greater, b where they are alike or one is NaN; `yes` where a <= b. */
static inline vf vf_min(vf a, vf b) { return _mm256_min_ps(a, b); }
static inline vf vf_max(vf a, vf b) { return _mm256_max_ps(a, b); }
static inline vf vf_where(vf a, vf b, vf yes, vf no) {
    return _mm256_blendv_ps(no, yes, _mm256_cmp_ps(a, b, _CMP_LE_OQ));
}
/* To the nearest integer, the even one of two. */
static inline vf vf_round(vf a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline float vf_sum(vf a) {
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
static inline vf vf_load_f16(const void *at) { return _mm256_cvtph_ps(_mm_loadu_si128(at)); }
static inline void vf_store_f16(void *at, vf a) { _mm_storeu_si128(at, _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT)); }
/* Times 2^-8, and 480 for NaN: all but the sign goes to where a half ends its exponent and begins its mantissa. */
static inline void vf_load_two_f8(const void *at, vf out[2]) {
    __m256i wide = _mm256_slli_epi16(_mm256_cvtepi8_epi16(_mm_loadu_si128(at)), 7);
    __m256i halves = _mm256_and_si256(wide, _mm256_set1_epi16((short)0xbfff));
    out[0] = _mm256_cvtph_ps(_mm256_castsi256_si128(halves));
    out[1] = _mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1));
}
static inline vf vf_load_bf16(const void *at) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(at)), 16));
}
