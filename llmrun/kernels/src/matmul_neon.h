/* Integer products of a panel of 16 rows: four registers of 4 sums, and the dot product of signed bytes. */
enum { PANEL = 16, TILE_TOKENS = 4, BYTES_OFFSET = 0 };

typedef int32x4_t vs;

static inline vs vs_set(int32_t value) { return vdupq_n_s32(value); }
static inline vs vs_add(vs a, vs b) { return vaddq_s32(a, b); }
static inline vs vs_times_256(vs a) { return vshlq_n_s32(a, 8); }
static inline vf vf_of_vs(vs a) { return vcvtq_f32_s32(a); }

/* sum += the products of 16 columns: four words of weights of each row, PANEL words apart. Unsigned weights are at
 * most 63, and so signed bytes as well. */
static inline vs vs_dot16(vs sum, const uint32_t *weights, const int8_t *x, int is_signed) {
    (void)is_signed;
    int8x16_t sixteen = vld1q_s8(x);
    sum = vdotq_laneq_s32(sum, vreinterpretq_s8_u32(vld1q_u32(weights)), sixteen, 0);
    sum = vdotq_laneq_s32(sum, vreinterpretq_s8_u32(vld1q_u32(weights + PANEL)), sixteen, 1);
    sum = vdotq_laneq_s32(sum, vreinterpretq_s8_u32(vld1q_u32(weights + 2 * PANEL)), sixteen, 2);
    return vdotq_laneq_s32(sum, vreinterpretq_s8_u32(vld1q_u32(weights + 3 * PANEL)), sixteen, 3);
}

/* out[k][r]: the k-th word of 16 bytes at `at` in row r */
static inline void read_words(const uint8_t *const *rows, long at, uint32_t (*out)[16]) {
    for (int r = 0; r < 16; r++) {
        uint32_t words[4];
        memcpy(words, rows[r] + at, 16);
        for (int k = 0; k < 4; k++) out[k][r] = words[k];
    }
}
