/* Integer products of a panel of 16 rows: two registers of 8 sums. */
enum { PANEL = 16, TILE_TOKENS = 4, BYTES_OFFSET = 0 };

typedef __m256i vs;

static inline vs vs_set(int32_t value) { return _mm256_set1_epi32(value); }
static inline vs vs_add(vs a, vs b) { return _mm256_add_epi32(a, b); }
static inline vs vs_times_256(vs a) { return _mm256_slli_epi32(a, 8); }
static inline vf vf_of_vs(vs a) { return _mm256_cvtepi32_ps(a); }

/* Pairs of products in 16 bits. Unsigned weights are at most 63, so that even two of these pairs added stay below
 * 2^15 (4 * 63 * 127 = 32004); signed ones give their sign to x, and a pair is at most 2 * 128 * 127 = 32512. */
static inline vs vs_pairs(const uint32_t *weights, const int8_t *x, int is_signed) {
    int32_t four;
    memcpy(&four, x, 4);
    vs w = _mm256_load_si256((const void *)weights), broadcast = _mm256_set1_epi32(four);
    if (is_signed) return _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(broadcast, w));
    return _mm256_maddubs_epi16(w, broadcast);
}

/* sum += the products of 16 columns: four words of weights of each row, PANEL words apart */
static inline vs vs_dot16(vs sum, const uint32_t *weights, const int8_t *x, int is_signed) {
    const vs ones = _mm256_set1_epi16(1);
    for (int k = 0; k < 4; k += 2) {
        vs first = vs_pairs(weights + k * PANEL, x + 4 * k, is_signed);
        vs second = vs_pairs(weights + (k + 1) * PANEL, x + 4 * k + 4, is_signed);
        if (is_signed) {
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(first, ones));
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(second, ones));
        } else {
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_add_epi16(first, second), ones));
        }
    }
    return sum;
}

/* out[k][r]: the k-th word of 16 bytes at `at` in row r */
static inline void read_words(const uint8_t *const *rows, long at, uint32_t (*out)[16]) {
    for (int r = 0; r < 16; r += 8) {
        __m256i a[4];
        for (int i = 0; i < 4; i++)
            a[i] = _mm256_loadu2_m128i((const void *)(rows[r + 4 + i] + at), (const void *)(rows[r + i] + at));
        __m256i low01 = _mm256_unpacklo_epi32(a[0], a[1]), low23 = _mm256_unpacklo_epi32(a[2], a[3]);
        __m256i high01 = _mm256_unpackhi_epi32(a[0], a[1]), high23 = _mm256_unpackhi_epi32(a[2], a[3]);
        _mm256_storeu_si256((void *)(out[0] + r), _mm256_unpacklo_epi64(low01, low23));
        _mm256_storeu_si256((void *)(out[1] + r), _mm256_unpackhi_epi64(low01, low23));
        _mm256_storeu_si256((void *)(out[2] + r), _mm256_unpacklo_epi64(high01, high23));
        _mm256_storeu_si256((void *)(out[3] + r), _mm256_unpackhi_epi64(high01, high23));
    }
}
