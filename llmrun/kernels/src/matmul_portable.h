/* Integer products of a panel of 16 rows in the compiler's vectors of four. */
enum { PANEL = 16, TILE_TOKENS = 1, BYTES_OFFSET = 0 };

typedef int32_t vs __attribute__((vector_size(16)));

static inline vs vs_set(int32_t value) { return (vs){value, value, value, value}; }
static inline vs vs_add(vs a, vs b) { return a + b; }
static inline vs vs_times_256(vs a) { return a * 256; }
static inline vf vf_of_vs(vs a) { return (vf){(float)a[0], (float)a[1], (float)a[2], (float)a[3]}; }

/* sum += the products of 16 columns: four words of weights of each row, PANEL words apart; any byte is a signed one */
static inline vs vs_dot16(vs sum, const uint32_t *weights, const int8_t *x, int is_signed) {
    (void)is_signed;
    for (int k = 0; k < 4; k++) {
        vs words;
        memcpy(&words, weights + k * PANEL, sizeof words);
        for (int i = 0; i < 4; i++) sum += (words << (24 - 8 * i) >> 24) * x[4 * k + i];
    }
    return sum;
}

/* out[k][r]: the k-th word of 16 bytes at `at` in row r */
static inline void read_words(const uint8_t *const *rows, long at, uint32_t (*out)[16]) {
    for (int r = 0; r < 16; r++) {
        uint32_t words[4];
        memcpy(words, rows[r] + at, 16);
        for (int k = 0; k < 4; k++) out[k][r] = words[k];
    }
}
