/* Numbers of 16 bits at any address, in plain C. */
#ifndef LLMRUN_CONVERT_H
#define LLMRUN_CONVERT_H

#include <stdint.h>
#include <string.h>

static inline float float_of_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static inline uint32_t bits_of_float(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}

static inline uint16_t bits16_at(const void *at) {
    uint16_t bits;
    memcpy(&bits, at, 2);
    return bits;
}

static inline float float_of_bf16(uint16_t bits) { return float_of_bits((uint32_t)bits << 16); }

/* Exponent and mantissa move to their places in a float, which is then scaled by 2^112: subnormals come right too. */
static inline float float_of_half(uint16_t bits) {
    uint32_t sign = (uint32_t)(bits & 0x8000) << 16, rest = bits & 0x7fff;
    if (rest >= 0x7c00) return float_of_bits(sign | 0x7f800000 | (rest & 0x3ff) << 13);
    return float_of_bits(sign | rest << 13) * 0x1p112f;
}

static inline float half_at(const void *at) { return float_of_half(bits16_at(at)); }

/* The nearest fp16, even on a tie, and the largest one for what is larger, NaN too; zero has no sign. Below 2^-14 its
 * units are those of a float from 0.5 on. */
static inline uint16_t half_of(float value) {
    uint32_t bits = bits_of_float(value), sign = bits >> 16 & 0x8000, size = bits & 0x7fffffff;
    size = size < 0x477fe000 ? size : 0x477fe000; /* 65504 */
    uint32_t small = bits_of_float(float_of_bits(size) + 0.5f) - 0x3f000000;
    uint32_t normal = (size + 0xfff + (size >> 13 & 1) - (112u << 23)) >> 13, half = size < 0x38800000 ? small : normal;
    return (uint16_t)(half ? sign | half : 0);
}

/* The same, but infinite for what is larger, NaN for NaN, and a zero keeps its sign: as processors have it. */
static inline uint16_t half_or_infinity_of(float value) {
    uint32_t bits = bits_of_float(value), sign = bits >> 16 & 0x8000, size = bits & 0x7fffffff;
    if (size >= 0x477ff000) return (uint16_t)(sign | (size > 0x7f800000 ? 0x7e00 : 0x7c00));
    return (uint16_t)(sign | half_of(value));
}

static inline float as_half(float value) { return float_of_half(half_of(value)); }

/* Sign, 4 bits of exponent, 3 of mantissa; no infinities, and NaN where those 7 bits are set. */
static inline float f8_at(const void *at) {
    uint8_t bits;
    memcpy(&bits, at, 1);
    uint32_t sign = (uint32_t)(bits & 0x80) << 24, rest = bits & 0x7f;
    return float_of_bits(sign | (rest == 0x7f ? 0x7fc00000 : rest << 20)) * 0x1p120f;
}

static inline float bf16_at(const void *at) { return float_of_bf16(bits16_at(at)); }

#endif
