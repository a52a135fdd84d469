/* Products of bytes in plain C, one group of 32 weights at a time (rows_int.inc says how they lie). */
#include <stdint.h>
#include <string.h>

#include "simd_int_plain.h"

typedef uint8_t vb __attribute__((vector_size(16)));
typedef int32_t vi __attribute__((vector_size(16)));

enum { SIGNED_OFFSET = 0 };

/* Of the groups that wider vectors hold beside it, one here. */
static inline vb vb_same(const uint8_t *at) {
    vb a;
    memcpy(&a, at, sizeof a);
    return a;
}
ALWAYS_INLINE vb vb_gather(step_blocks block, int stride, int offset) {
    (void)stride;
    return vb_same(block + offset);
}
/* The sixteen h (0 or 1). */
static inline vb vb_twice(const uint8_t *at, int h) { return vb_same(at + 16 * h); }
/* The same of an even group; odd groups lie 32 bytes on. */
static inline vb vb_alternate(const uint8_t *at, int h, int first) { return vb_same(at + 16 * h + first % 2 * 32); }
static inline vb vb_and(vb a, int mask) { return a & (uint8_t)mask; }
static inline vb vb_or(vb a, vb b) { return a | b; }
static inline vb vb_right(vb a, int bits) { return a >> (uint8_t)bits; }
static inline vb vb_left(vb a, int bits) { return a << (uint8_t)bits; }
static inline vb vb_right_each(vb a, int b0, int b1, int b2, int b3) {
    (void)b1, (void)b2, (void)b3;
    return vb_right(a, b0);
}
/* Of sixteen bits: byte i is `value` where bit i is set, 0 elsewhere. */
ALWAYS_INLINE vb vb_bits(step_blocks block, int stride, int offset, int value) {
    const uint8_t *at = block + offset;
    vb a;
    (void)stride;
    for (int i = 0; i < 16; i++) a[i] = (uint8_t)((at[i / 8] >> (i % 8) & 1) * value);
    return a;
}
static inline vb vb_signed(vb a) { return a; }

static inline vb vb_load(const void *at) {
    vb a;
    memcpy(&a, at, sizeof a);
    return a;
}
static inline void vb_store(void *to, vb a) { memcpy(to, &a, sizeof a); }
/* The activations of the group at `x`. */
static inline void vb_activations(const int8_t *x, vb *u, vb *v) {
    memcpy(u, x, 16);
    memcpy(v, x + 16, 16);
}
/* start + the sums of four products, of signed bytes: weights up to 63 are these too. A lane adds up any four, for all
 * are of one group: two products of 128 * 127 still fit 16 bits. */
static inline vi vi_dot(vi start, vb u, vb x) {
    typedef int8_t eight __attribute__((vector_size(8)));
    typedef int16_t words __attribute__((vector_size(16)));
    typedef int16_t four __attribute__((vector_size(8)));
    eight a[2], b[2];
    four sums[2];
    memcpy(a, &u, 16);
    memcpy(b, &x, 16);
    words products = __builtin_convertvector(a[0], words) * __builtin_convertvector(b[0], words) +
                     __builtin_convertvector(a[1], words) * __builtin_convertvector(b[1], words);
    memcpy(sums, &products, 16);
    return start + __builtin_convertvector(sums[0], vi) + __builtin_convertvector(sums[1], vi);
}
static inline vi vi_dot_pair(vi start, vb u, vb v, vb xu, vb xv) { return vi_dot(vi_dot(start, u, xu), v, xv); }
static inline vi vi_dot_signed(vi start, vb u, vb v, vb xu, vb xv) { return vi_dot_pair(start, u, v, xu, xv); }
static inline vi vi_zero(void) { return (vi){0, 0, 0, 0}; }
static inline vi vi_times_256(vi a) { return a * 256; }
static inline vi vi_add(vi a, vi b) { return a + b; }
static inline vf vf_of(vi a) { return __builtin_convertvector(a, vf); }

/* On all lanes of the group. */
static inline vf vf_spread(vg a) { return vf_set(a); }
