/* Each format as ggml's reference has it: one row to float. Plain C, compiled once: embeddings and tests use it. */
#include <stdint.h>
#include <string.h>

#include "convert.h"
#include "kernels.h"

llmrun_block llmrun_block_of(int format) {
    switch (format) {
        case LLMRUN_F32: return (llmrun_block){1, 4};
        case LLMRUN_F16:
        case LLMRUN_BF16: return (llmrun_block){1, 2};
        case LLMRUN_F8_E4M3: return (llmrun_block){1, 1};
        case LLMRUN_Q4_0: return (llmrun_block){32, 18};
        case LLMRUN_Q4_1: return (llmrun_block){32, 20};
        case LLMRUN_Q5_0: return (llmrun_block){32, 22};
        case LLMRUN_Q5_1: return (llmrun_block){32, 24};
        case LLMRUN_Q8_0: return (llmrun_block){32, 34};
        case LLMRUN_Q4_K: return (llmrun_block){256, 144};
        case LLMRUN_Q5_K: return (llmrun_block){256, 176};
        case LLMRUN_Q6_K: return (llmrun_block){256, 210};
        default: return (llmrun_block){0, 0};
    }
}

static void f32(const uint8_t *block, float *out) { memcpy(out, block, 4); }

static void f16(const uint8_t *block, float *out) { *out = half_at(block); }

static void bf16(const uint8_t *block, float *out) { *out = bf16_at(block); }

static void f8(const uint8_t *block, float *out) { *out = f8_at(block); }

/* fp16 scale, 32 int8 */
static void q8_0(const uint8_t *block, float *out) {
    float d = half_at(block);
    for (int i = 0; i < 32; i++) out[i] = d * (float)(int8_t)block[2 + i];
}

/* byte j of the nibbles holds weight j (low) and j + 16 (high); without a minimum m is -0, which changes no number */
static void q4(const uint8_t *nibbles, float d, float m, int offset, float *out) {
    for (int j = 0; j < 16; j++) {
        out[j] = d * (float)((nibbles[j] & 15) - offset) + m;
        out[j + 16] = d * (float)((nibbles[j] >> 4) - offset) + m;
    }
}

static void q4_0(const uint8_t *block, float *out) { q4(block + 2, half_at(block), -0.0f, 8, out); }

static void q4_1(const uint8_t *block, float *out) { q4(block + 4, half_at(block), half_at(block + 2), 0, out); }

/* the fifth bits of the 32 weights in four bytes before the nibbles */
static void q5(const uint8_t *high, float d, float m, int offset, float *out) {
    const uint8_t *nibbles = high + 4;
    for (int i = 0; i < 32; i++) {
        int low = i < 16 ? nibbles[i] & 15 : nibbles[i - 16] >> 4;
        int bit = high[i / 8] >> (i % 8) & 1;
        out[i] = d * (float)((low | bit << 4) - offset) + m;
    }
}

static void q5_0(const uint8_t *block, float *out) { q5(block + 2, half_at(block), -0.0f, 16, out); }

static void q5_1(const uint8_t *block, float *out) { q5(block + 4, half_at(block), half_at(block + 2), 0, out); }

/* 8 scales and 8 minima of 6 bits in 12 bytes */
static void scale_min(const uint8_t *packed, int group, int *scale, int *minimum) {
    if (group < 4) {
        *scale = packed[group] & 63;
        *minimum = packed[group + 4] & 63;
    } else {
        *scale = (packed[group + 4] & 15) | (packed[group - 4] >> 6) << 4;
        *minimum = (packed[group + 4] >> 4) | (packed[group] >> 6) << 4;
    }
}

/* 8 groups of 32; nibbles: 32 bytes hold a group (low) and the next (high); high: bit g is group g's fifth, or NULL */
static void q45_k(const uint8_t *block, const uint8_t *high, const uint8_t *nibbles, float *out) {
    float d = half_at(block), dmin = half_at(block + 2);
    for (int g = 0; g < 8; g++) {
        int scale, minimum;
        scale_min(block + 4, g, &scale, &minimum);
        float dg = d * (float)scale, mg = dmin * (float)minimum;
        for (int i = 0; i < 32; i++) {
            int q = nibbles[g / 2 * 32 + i] >> (g % 2 * 4) & 15;
            if (high) q |= (high[i] >> g & 1) << 4;
            out[g * 32 + i] = dg * (float)q - mg;
        }
    }
}

static void q4_k(const uint8_t *block, float *out) { q45_k(block, NULL, block + 16, out); }

static void q5_k(const uint8_t *block, float *out) { q45_k(block, block + 16, block + 48, out); }

/* two halves of 128: 64 bytes of low nibbles, 32 of high pairs of bits; then 16 int8 scales and the fp16 one */
static void q6_k(const uint8_t *block, float *out) {
    float d = half_at(block + 208);
    for (int i = 0; i < 256; i++) {
        int half = i / 128, quarter = i % 128 / 32, j = i % 32;
        int low = block[half * 64 + quarter % 2 * 32 + j] >> (quarter / 2 * 4) & 15;
        int pair = block[128 + half * 32 + j] >> (quarter * 2) & 3;
        float scale = d * (float)(int8_t)block[192 + i / 16];
        out[i] = scale * (float)((low | pair << 4) - 32);
    }
}

typedef void (*block_function)(const uint8_t *block, float *out);

static block_function function_of(int format) {
    switch (format) {
        case LLMRUN_F32: return f32;
        case LLMRUN_F16: return f16;
        case LLMRUN_BF16: return bf16;
        case LLMRUN_F8_E4M3: return f8;
        case LLMRUN_Q4_0: return q4_0;
        case LLMRUN_Q4_1: return q4_1;
        case LLMRUN_Q5_0: return q5_0;
        case LLMRUN_Q5_1: return q5_1;
        case LLMRUN_Q8_0: return q8_0;
        case LLMRUN_Q4_K: return q4_k;
        case LLMRUN_Q5_K: return q5_k;
        case LLMRUN_Q6_K: return q6_k;
        default: return NULL;
    }
}

int llmrun_dequantise(int format, const void *row, long columns, float *out) {
    llmrun_block block = llmrun_block_of(format);
    if (!block.weights || !row || !out || columns < 1 || columns % block.weights) return -2;
    block_function function = function_of(format);
    const uint8_t *bytes = row;
    for (long c = 0; c < columns; c += block.weights, bytes += block.bytes) function(bytes, out + c);
    return 0;
}
