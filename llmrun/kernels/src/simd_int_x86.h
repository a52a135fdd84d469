/* What AVX2 and AVX-512 read alike: scales of eight groups, and sixteen bytes. */
#include <immintrin.h>
#include <stdint.h>

#include "convert.h"

static inline __m128i sixteen(const uint8_t *at) { return _mm_loadu_si128((const __m128i *)at); }

static inline float half_float(const uint8_t *at) { return _cvtsh_ss(bits16_at(at)); }

static inline void store_scaled(float *out, __m256i eight, float factor) {
    _mm256_storeu_ps(out, _mm256_mul_ps(_mm256_cvtepi32_ps(eight), _mm256_set1_ps(factor)));
}
/* factor times each of eight unsigned bytes */
static inline void scale_unsigned(float *out, uint64_t bytes, float factor) {
    store_scaled(out, _mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)bytes)), factor);
}
/* factor times each of sixteen signed bytes: those in even places, those in odd ones */
static inline void scale_signed(float *even, float *odd, const uint8_t *at, float factor) {
    __m128i bytes = sixteen(at);
    store_scaled(even, _mm256_cvtepi16_epi32(_mm_srai_epi16(_mm_slli_epi16(bytes, 8), 8)), factor);
    store_scaled(odd, _mm256_cvtepi16_epi32(_mm_srai_epi16(bytes, 8)), factor);
}
