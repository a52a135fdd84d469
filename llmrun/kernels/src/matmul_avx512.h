/* Integer products of a panel of 32 rows: two registers of 16 sums, and VNNI. */
enum { PANEL = 32, TILE_TOKENS = 6, BYTES_OFFSET = 128 };

typedef __m512i vs;

static inline vs vs_set(int32_t value) { return _mm512_set1_epi32(value); }
static inline vs vs_add(vs a, vs b) { return _mm512_add_epi32(a, b); }
static inline vs vs_times_256(vs a) { return _mm512_slli_epi32(a, 8); }
static inline vf vf_of_vs(vs a) { return _mm512_cvtepi32_ps(a); }

/* sum += the products of four unsigned bytes in each word of weights with the four of x */
static inline vs vs_dot(vs sum, const uint32_t *weights, const int8_t *x) {
    int32_t four;
    memcpy(&four, x, 4);
    return _mm512_dpbusd_epi32(sum, _mm512_load_si512(weights), _mm512_set1_epi32(four));
}

/* out[k][r]: the k-th word of 16 bytes at `at` in row r */
static inline void read_words(const uint8_t *const *rows, long at, uint32_t (*out)[16]) {
    __m512i a[4];
    for (int i = 0; i < 4; i++) {
        a[i] = _mm512_castsi128_si512(_mm_loadu_si128((const void *)(rows[i] + at)));
        a[i] = _mm512_inserti32x4(a[i], _mm_loadu_si128((const void *)(rows[4 + i] + at)), 1);
        a[i] = _mm512_inserti32x4(a[i], _mm_loadu_si128((const void *)(rows[8 + i] + at)), 2);
        a[i] = _mm512_inserti32x4(a[i], _mm_loadu_si128((const void *)(rows[12 + i] + at)), 3);
    }
    __m512i low01 = _mm512_unpacklo_epi32(a[0], a[1]), low23 = _mm512_unpacklo_epi32(a[2], a[3]);
    __m512i high01 = _mm512_unpackhi_epi32(a[0], a[1]), high23 = _mm512_unpackhi_epi32(a[2], a[3]);
    _mm512_storeu_si512(out[0], _mm512_unpacklo_epi64(low01, low23));
    _mm512_storeu_si512(out[1], _mm512_unpackhi_epi64(low01, low23));
    _mm512_storeu_si512(out[2], _mm512_unpacklo_epi64(high01, high23));
    _mm512_storeu_si512(out[3], _mm512_unpackhi_epi64(high01, high23));
}
