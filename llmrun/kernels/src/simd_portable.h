/* Four floats at a time, in the compiler's own vectors (GCC and clang have them for every CPU). */
#include <stdint.h>
#include <string.h>

#include "convert.h"

typedef float vf __attribute__((vector_size(16)));
typedef int32_t vf_mask __attribute__((vector_size(16)));
enum { LANES = 4 };
#define REGISTERS 16

static inline vf vf_set(float value) { return (vf){value, value, value, value}; }
static inline vf vf_zero(void) { return vf_set(0); }
static inline vf vf_load(const void *at) {
    vf a;
    memcpy(&a, at, sizeof a);
    return a;
}
static inline void vf_store(float *at, vf a) { memcpy(at, &a, sizeof a); }
static inline vf vf_add(vf a, vf b) { return a + b; }
static inline vf vf_mul(vf a, vf b) { return a * b; }
static inline vf vf_fma(vf a, vf b, vf c) { return a * b + c; }
/* The lesser, the greater, b where they are alike or one is NaN; `yes` where a <= b. */
static inline vf vf_min(vf a, vf b) {
    for (int i = 0; i < LANES; i++) a[i] = a[i] < b[i] ? a[i] : b[i];
    return a;
}
static inline vf vf_max(vf a, vf b) {
    for (int i = 0; i < LANES; i++) a[i] = a[i] > b[i] ? a[i] : b[i];
    return a;
}
static inline vf vf_where(vf a, vf b, vf yes, vf no) {
    vf_mask mask = a <= b;
    return (vf)((mask & (vf_mask)yes) | (~mask & (vf_mask)no));
}
/* To the nearest integer, the even one of two; up to 2^22. */
static inline vf vf_round(vf a) { return (a + 0x1.8p23f) - 0x1.8p23f; }
static inline float vf_sum(vf a) { return (a[0] + a[1]) + (a[2] + a[3]); }
static inline vf vf_load_f16(const void *at) {
    const char *bytes = at;
    return (vf){half_at(bytes), half_at(bytes + 2), half_at(bytes + 4), half_at(bytes + 6)};
}
static inline void vf_store_f16(void *at, vf a) {
    for (int i = 0; i < LANES; i++) {
        uint16_t bits = half_or_infinity_of(a[i]);
        memcpy((char *)at + 2 * i, &bits, 2);
    }
}
/* Times 2^-8, and 480 for NaN, as the other variants have it. */
static inline void vf_load_two_f8(const void *at, vf out[2]) {
    typedef uint32_t words __attribute__((vector_size(16)));
    const char *bytes = at;
    for (int i = 0; i < 2; i++) {
        uint8_t four __attribute__((vector_size(4)));
        memcpy(&four, bytes + 4 * i, sizeof four);
        words wide = __builtin_convertvector(four, words);
        out[i] = (vf)((wide & 0x80) << 24 | (wide & 0x7f) << 20) * 0x1p112f;
    }
}
static inline vf vf_load_bf16(const void *at) {
    const char *bytes = at;
    return (vf){bf16_at(bytes), bf16_at(bytes + 2), bf16_at(bytes + 4), bf16_at(bytes + 6)};
}
