/* Four floats at a time. */
#include <arm_neon.h>
#include <stdint.h>

typedef float32x4_t vf;
enum { LANES = 4 };
#define REGISTERS 32

static inline vf vf_zero(void) { return vdupq_n_f32(0); }
static inline vf vf_set(float value) { return vdupq_n_f32(value); }
static inline vf vf_load(const void *at) { return vreinterpretq_f32_u8(vld1q_u8(at)); }
static inline void vf_store(float *at, vf a) { vst1q_f32(at, a); }
static inline vf vf_add(vf a, vf b) { return vaddq_f32(a, b); }
static inline vf vf_mul(vf a, vf b) { return vmulq_f32(a, b); }
static inline vf vf_fma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
/* The lesser, the greater, b where they are alike or one is NaN; `yes` where a <= b. */
static inline vf vf_min(vf a, vf b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
static inline vf vf_max(vf a, vf b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
static inline vf vf_where(vf a, vf b, vf yes, vf no) { return vbslq_f32(vcleq_f32(a, b), yes, no); }
/* To the nearest integer, the even one of two. */
static inline vf vf_round(vf a) { return vrndnq_f32(a); }
static inline float vf_sum(vf a) { return vaddvq_f32(a); }
static inline vf vf_load_f16(const void *at) { return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(at))); }
static inline void vf_store_f16(void *at, vf a) { vst1_u8(at, vreinterpret_u8_f16(vcvt_f16_f32(a))); }
/* Times 2^-8, and 480 for NaN: all but the sign goes to where a half ends its exponent and begins its mantissa. */
static inline void vf_load_two_f8(const void *at, vf out[2]) {
    uint16x8_t wide = vreinterpretq_u16_s16(vshlq_n_s16(vmovl_s8(vreinterpret_s8_u8(vld1_u8(at))), 7));
    float16x8_t halves = vreinterpretq_f16_u16(vandq_u16(wide, vdupq_n_u16(0xbfff)));
    out[0] = vcvt_f32_f16(vget_low_f16(halves));
    out[1] = vcvt_f32_f16(vget_high_f16(halves));
}
static inline vf vf_load_bf16(const void *at) {
    return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(at)), 16));
}
