/* A step of one group: its blocks, its numbers and scales of eight groups, in plain C. */
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

typedef float vg; /* a float for each group */
static inline vg vg_zero(void) { return 0; }
static inline vg vg_load(const float *at) { return *at; }
static inline vg vg_mul(vg a, vg b) { return a * b; }
static inline vg vg_fma(vg a, vg b, vg c) { return a * b + c; }
static inline float vg_sum(vg a) { return a; }

/* What a step's blocks are taken from: here where they begin. */
typedef const uint8_t *step_blocks;
ALWAYS_INLINE step_blocks blocks_at(const uint8_t *at, int stride) {
    (void)stride;
    return at;
}

/* fp16 at `offset` of the block */
ALWAYS_INLINE vg vg_halves(step_blocks block, int stride, int offset) {
    (void)stride;
    return half_at(block + offset);
}
