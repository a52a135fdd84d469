/* Products of bytes, one group of 32 weights at a time (rows_int.inc says how they lie). */
#include <arm_neon.h>
#include <stdint.h>

#include "simd_int_plain.h"

typedef uint8x16_t vb; /* bytes */
typedef int32x4_t vi;  /* int32 */

enum { SIGNED_OFFSET = 0 };

/* Of the groups that wider vectors hold beside it, one here. */
static inline vb vb_same(const uint8_t *at) { return vld1q_u8(at); }
ALWAYS_INLINE vb vb_gather(step_blocks block, int stride, int offset) {
    (void)stride;
    return vb_same(block + offset);
}
/* The sixteen h (0 or 1). */
static inline vb vb_twice(const uint8_t *at, int h) { return vb_same(at + 16 * h); }
/* The same of an even group; odd groups lie 32 bytes on. */
static inline vb vb_alternate(const uint8_t *at, int h, int first) { return vb_same(at + 16 * h + first % 2 * 32); }
static inline vb vb_and(vb a, int mask) { return vandq_u8(a, vdupq_n_u8((uint8_t)mask)); }
static inline vb vb_or(vb a, vb b) { return vorrq_u8(a, b); }
static inline vb vb_right(vb a, int bits) { return vshlq_u8(a, vdupq_n_s8((int8_t)-bits)); }
static inline vb vb_left(vb a, int bits) { return vshlq_u8(a, vdupq_n_s8((int8_t)bits)); }
static inline vb vb_right_each(vb a, int b0, int b1, int b2, int b3) {
    (void)b1, (void)b2, (void)b3;
    return vb_right(a, b0);
}
/* Of sixteen bits: byte i is `value` where bit i is set, 0 elsewhere. */
ALWAYS_INLINE vb vb_bits(step_blocks block, int stride, int offset, int value) {
    const uint8_t *at = block + offset;
    const uint8x16_t bits = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201));
    (void)stride;
    return vb_and(vtstq_u8(vcombine_u8(vdup_n_u8(at[0]), vdup_n_u8(at[1])), bits), value);
}
static inline vb vb_signed(vb a) { return a; }

static inline vb vb_load(const void *at) { return vld1q_u8(at); }
static inline void vb_store(void *to, vb a) { vst1q_u8(to, a); }
/* The activations of the group at `x`. */
static inline void vb_activations(const int8_t *x, vb *u, vb *v) {
    *u = vreinterpretq_u8_s8(vld1q_s8(x));
    *v = vreinterpretq_u8_s8(vld1q_s8(x + 16));
}
/* start + the sums of four products; weights up to 63 are signed bytes too */
static inline vi vi_dot(vi start, vb u, vb x) {
    return vdotq_s32(start, vreinterpretq_s8_u8(u), vreinterpretq_s8_u8(x));
}
static inline vi vi_dot_pair(vi start, vb u, vb v, vb xu, vb xv) { return vi_dot(vi_dot(start, u, xu), v, xv); }
static inline vi vi_dot_signed(vi start, vb u, vb v, vb xu, vb xv) { return vi_dot_pair(start, u, v, xu, xv); }
static inline vi vi_zero(void) { return vdupq_n_s32(0); }
static inline vi vi_times_256(vi a) { return vshlq_n_s32(a, 8); }
static inline vi vi_add(vi a, vi b) { return vaddq_s32(a, b); }
static inline vf vf_of(vi a) { return vcvtq_f32_s32(a); }

/* On all lanes of the group. */
static inline vf vf_spread(vg a) { return vdupq_n_f32(a); }
