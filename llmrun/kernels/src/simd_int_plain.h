/* Scales of eight groups in plain C. */
#include <stdint.h>

#include "convert.h"

static inline float half_float(const uint8_t *at) { return half_at(at); }

/* factor times each of eight unsigned bytes */
static inline void scale_unsigned(float *out, uint64_t bytes, float factor) {
    for (int i = 0; i < 8; i++) out[i] = factor * (float)(bytes >> (8 * i) & 255);
}
/* factor times each of sixteen signed bytes: those in even places, those in odd ones */
static inline void scale_signed(float *even, float *odd, const uint8_t *at, float factor) {
    for (int i = 0; i < 8; i++) {
        even[i] = factor * (float)(int8_t)at[2 * i];
        odd[i] = factor * (float)(int8_t)at[2 * i + 1];
    }
}
