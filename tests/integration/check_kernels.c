/* The kernels against sums in double, for builds that Python cannot load: with sanitizers, or for another CPU.
 *
 * Matrices lie at any address, and end where a sanitizer or the CPU itself sees what reads behind them. Prints what was
 * checked; exits 1 if anything is wrong. */
#define _DEFAULT_SOURCE
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernels.h"

static const int FORMATS[] = {LLMRUN_F32,  LLMRUN_F16,  LLMRUN_BF16, LLMRUN_F8_E4M3, LLMRUN_Q4_0, LLMRUN_Q4_1,
                              LLMRUN_Q5_0, LLMRUN_Q5_1, LLMRUN_Q8_0, LLMRUN_Q4_K, LLMRUN_Q5_K,    LLMRUN_Q6_K};
enum { N_FORMATS = sizeof FORMATS / sizeof FORMATS[0], GROUP = 16 };

static uint32_t state = 1;

static uint32_t random_bits(void) {
    state = state * 1664525u + 1013904223u;
    return state >> 8;
}

static float random_float(void) { return (float)(random_bits() & 0xffff) / 32768 - 1; }

static void *take(size_t nbytes) {
    void *memory = malloc(nbytes);
    if (!memory) exit(2);
    return memory;
}

/* Ends with the last byte before a page that cannot be read. */
static uint8_t *take_fenced(size_t nbytes) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), pages = (nbytes + page - 1) / page * page;
    uint8_t *memory = mmap(NULL, pages + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory + pages, page, PROT_NONE)) exit(2);
    return memory + pages - nbytes;
}

static void give_fenced(uint8_t *memory, size_t nbytes) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), pages = (nbytes + page - 1) / page * page;
    munmap(memory + nbytes - pages, pages + page);
}

/* Halves between 2^-8 and 2^-4 where a block has its scales, so that no weight is infinite. */
static void tame(int format, uint8_t *block) {
    int at = format == LLMRUN_Q6_K ? 208 : 0;
    int two = format == LLMRUN_Q4_1 || format == LLMRUN_Q5_1 || format == LLMRUN_Q4_K || format == LLMRUN_Q5_K;
    for (int i = 0; i <= two; i++) block[at + 2 * i + 1] = (uint8_t)(0x1c | (block[at + 2 * i + 1] & 0x8f));
}

static void fill(int format, uint8_t *bytes, long blocks, int nbytes) {
    for (long i = 0; i < blocks; i++, bytes += nbytes) {
        for (int b = 0; b < nbytes; b++) bytes[b] = (uint8_t)random_bits();
        if (format == LLMRUN_F32 || format == LLMRUN_BF16)
            bytes[nbytes - 1] = (uint8_t)(0x3e | (bytes[nbytes - 1] & 0x80));
        else if (format == LLMRUN_F8_E4M3)
            bytes[0] &= 0xbf; /* no NaN */
        else
            tame(format, bytes);
    }
}

/* What rounding may do to one product: that of floats, and where there are integers that of x to a step of 127. */
static double allowed(int format, const float *row, const float *x, long columns) {
    double floats = 0, rounding = 0;
    for (long c = 0; c < columns; c += GROUP) {
        double weights = 0, greatest = 0;
        long begin = c / 32 * 32, end = begin + 32 < columns ? begin + 32 : columns;
        for (long i = begin; i < end; i++) greatest = fmax(greatest, fabs((double)x[i]));
        for (long i = c; i < c + GROUP && i < columns; i++) {
            weights += fabs((double)row[i]);
            floats += fabs((double)row[i] * (double)x[i]);
        }
        rounding += weights * greatest / 254;
    }
    return 1e-4 * floats + (llmrun_block_of(format).weights > 1 ? 1.01 * rounding : 0) + 1e-30;
}

/* Scales of blocks of 3 x 5 weights, and those applied to a row; other formats have none. */
enum { BLOCK_ROWS = 3, BLOCK_COLUMNS = 5 };

static float *make_scales(int format, long rows, long columns) {
    if (format != LLMRUN_F8_E4M3) return NULL;
    long count = ((rows - 1) / BLOCK_ROWS + 1) * ((columns - 1) / BLOCK_COLUMNS + 1);
    float *scales = take((size_t)count * sizeof *scales);
    for (long i = 0; i < count; i++) scales[i] = random_float();
    return scales;
}

static void apply_scales(const llmrun_matrix *matrix, long r, float *row) {
    long blocks = (matrix->columns - 1) / BLOCK_COLUMNS + 1;
    for (long c = 0; c < matrix->columns && matrix->scales; c++)
        row[c] *= matrix->scales[r / BLOCK_ROWS * blocks + c / BLOCK_COLUMNS];
}

static int check_floats(llmrun_pool *pool, const llmrun_matrix *matrix, const float *row, long r) {
    if (llmrun_block_of(matrix->format).weights > 1) return 0;
    float *all = take((size_t)(matrix->rows * matrix->columns) * sizeof *all);
    int wrong = llmrun_floats(pool, matrix, all) != 0;
    for (long c = 0; c < matrix->columns; c++) wrong |= all[r * matrix->columns + c] != row[c];
    free(all);
    return wrong;
}

static int check_linear(llmrun_pool *pool, int format, long rows, long columns, long tokens) {
    llmrun_block block = llmrun_block_of(format);
    long row_bytes = columns / block.weights * block.bytes, wrong = 0;
    uint8_t *memory = take((size_t)(1 + rows * row_bytes)), *fenced = take_fenced((size_t)(rows * row_bytes));
    uint8_t *weights = tokens % 2 == rows % 2 ? memory + 1 : fenced;
    float *x = take((size_t)(tokens * columns) * sizeof *x), *y = take((size_t)(tokens * rows) * sizeof *y);
    float *row = take((size_t)columns * sizeof *row);
    fill(format, weights, rows * columns / block.weights, block.bytes);
    for (long i = 0; i < tokens * columns; i++) x[i] = random_float();
    float *scales = make_scales(format, rows, columns);
    llmrun_matrix matrix = {format, rows, columns, weights, row_bytes, scales, BLOCK_ROWS, BLOCK_COLUMNS};
    if (llmrun_linear(pool, &matrix, x, tokens, y)) wrong = 1;
    for (long r = 0; r < rows && !wrong; r++) {
        llmrun_dequantise(format, weights + r * row_bytes, columns, row);
        apply_scales(&matrix, r, row);
        wrong += check_floats(pool, &matrix, row, r);
        for (long t = 0; t < tokens; t++) {
            double sum = 0;
            for (long c = 0; c < columns; c++) sum += (double)row[c] * (double)x[t * columns + c];
            double error = fabs(sum - (double)y[t * rows + r]);
            if (!(error <= allowed(format, row, x + t * columns, columns))) wrong++;
        }
    }
    /* any bits, NaN and infinity among them: only that it ends */
    for (long i = 0; i < rows * row_bytes; i++) weights[i] = (uint8_t)random_bits();
    llmrun_linear(pool, &matrix, x, tokens, y);
    if (wrong) printf("wrong: format %d, %ld x %ld, %ld tokens\n", format, rows, columns, tokens);
    give_fenced(fenced, (size_t)(rows * row_bytes));
    free(memory), free(x), free(y), free(row), free(scales);
    return wrong != 0;
}

/* Of what is lost in blocks with fp16 scales. */
static int check_round(llmrun_pool *pool, int format, int plain, long rows, long blocks) {
    llmrun_block block = llmrun_block_of(format), from = llmrun_block_of(plain);
    long columns = blocks * block.weights, row_bytes = columns * from.bytes, out_bytes = blocks * block.bytes;
    uint8_t *weights = take_fenced((size_t)(rows * row_bytes)), *out = take_fenced((size_t)(rows * out_bytes));
    float *before = take((size_t)columns * sizeof *before), *after = take((size_t)columns * sizeof *after);
    float *counts = (float *)take_fenced((size_t)columns * sizeof *counts), *importance = rows % 2 ? counts : NULL;
    for (long c = 0; c < columns; c++) counts[c] = 1 + (float)(c % 3) / 4;
    fill(plain, weights, rows * columns, from.bytes);
    llmrun_matrix matrix = {plain, rows, columns, weights, row_bytes, NULL, 0, 0};
    int wrong = llmrun_round(pool, &matrix, format, importance, out) != 0;
    for (long r = 0; r < rows && !wrong; r++) {
        double lost = 0, all = 0;
        llmrun_dequantise(plain, weights + r * row_bytes, columns, before);
        llmrun_dequantise(format, out + r * out_bytes, columns, after);
        for (long c = 0; c < columns; c++) {
            lost += ((double)before[c] - (double)after[c]) * ((double)before[c] - (double)after[c]);
            all += (double)before[c] * (double)before[c];
        }
        wrong |= !(lost <= 0.02 * all); /* 14 %, of 4 bits */
    }
    /* any bits, NaN and infinity among them: only that it ends */
    for (long i = 0; i < rows * row_bytes; i++) weights[i] = (uint8_t)random_bits();
    llmrun_round(pool, &matrix, format, importance, out);
    if (wrong) printf("wrong: %d rounded to %d, %ld x %ld\n", plain, format, rows, columns);
    give_fenced(weights, (size_t)(rows * row_bytes));
    give_fenced(out, (size_t)(rows * out_bytes));
    give_fenced((uint8_t *)counts, (size_t)columns * sizeof *counts);
    free(before), free(after);
    return wrong;
}

static double score(const llmrun_attention_job *job, const float *query, const float *key) {
    double sum = 0;
    for (long d = 0; d < job->head_dim; d++) sum += (double)query[d] * (double)key[d];
    sum *= (double)job->scale;
    return job->softcap != 0 ? (double)job->softcap * tanh(sum / (double)job->softcap) : sum;
}

static int is_near(const llmrun_attention_job *job, long head, long query) {
    long row = head * job->queries + query, last = job->tokens - job->queries + query;
    long first = job->window && last >= job->window ? last + 1 - job->window : 0;
    const float *keys = (const float *)job->keys + head / job->group * job->key_head;
    const float *values = (const float *)job->values + head / job->group * job->value_head;
    for (long d = 0; d < job->head_dim; d++) {
        double sum = 0, total = 0;
        for (long t = first; t <= last; t++) {
            double weight = exp(score(job, job->query + row * job->head_dim, keys + t * job->key_token));
            total += weight;
            sum += weight * (double)values[t * job->value_token + d];
        }
        if (!(fabs(sum / total - (double)job->out[row * job->head_dim + d]) < 1e-4)) return 0;
    }
    return 1;
}

static int check_attention(llmrun_pool *pool, long group, long queries, long tokens, long head_dim, long window) {
    const long kv_heads = 3, heads = kv_heads * group;
    float *query = take((size_t)(heads * queries * head_dim) * sizeof(float));
    float *out = take((size_t)(heads * queries * head_dim) * sizeof(float));
    float *cache = take((size_t)(2 * kv_heads * tokens * head_dim) * sizeof(float));
    for (long i = 0; i < heads * queries * head_dim; i++) query[i] = 2 * random_float();
    for (long i = 0; i < 2 * kv_heads * tokens * head_dim; i++) cache[i] = random_float();
    llmrun_attention_job job = {LLMRUN_F32, kv_heads, group, queries, tokens, head_dim, query,
                                queries * head_dim, head_dim, cache,
                                cache + kv_heads * tokens * head_dim, tokens * head_dim, head_dim, tokens * head_dim,
                                head_dim, window, 0.3f, window ? 20.0f : 0.0f, out,
                                queries * head_dim, head_dim};
    int wrong = llmrun_attention(pool, &job) != 0;
    for (long head = 0; head < heads; head++)
        for (long t = 0; t < queries; t++) wrong |= !is_near(&job, head, t);
    if (wrong) printf("wrong: attention of %ld to %ld of %ld, group %ld\n", queries, tokens, head_dim, group);
    free(query), free(out), free(cache);
    return wrong;
}

static int check_rms_norm(llmrun_pool *pool, long tokens, long columns) {
    size_t nbytes = (size_t)(tokens * columns) * sizeof(float);
    float *weight = take((size_t)columns * sizeof(float)), *x = take(nbytes), *y = take(nbytes);
    for (long c = 0; c < columns; c++) weight[c] = random_float();
    for (long i = 0; i < tokens * columns; i++) x[i] = random_float();
    int wrong = llmrun_rms_norm(pool, x, weight, tokens, columns, 1e-2f, y) != 0;
    for (long t = 0; t < tokens; t++) {
        double sum = 0;
        for (long c = 0; c < columns; c++) sum += (double)x[t * columns + c] * (double)x[t * columns + c];
        for (long c = 0; c < columns; c++) {
            double exact = (double)weight[c] * (double)x[t * columns + c] / sqrt(sum / (double)columns + 1e-2);
            wrong |= !(fabs(exact - (double)y[t * columns + c]) < 1e-5);
        }
    }
    if (wrong) printf("wrong: norm of %ld x %ld\n", tokens, columns);
    free(weight), free(x), free(y);
    return wrong;
}

static llmrun_matrix random_matrix(long rows, long columns) {
    float *data = (float *)(void *)take_fenced((size_t)(rows * columns) * sizeof(float));
    for (long i = 0; i < rows * columns; i++) data[i] = random_float() / 4;
    return (llmrun_matrix){LLMRUN_F32, rows, columns, data, columns * (long)sizeof(float), NULL, 0, 0};
}

static void give_matrix(const llmrun_matrix *matrix) {
    give_fenced((uint8_t *)matrix->data, (size_t)(matrix->rows * matrix->row_bytes));
}

static int are_near(const float *found, const float *expected, long n) {
    for (long i = 0; i < n; i++)
        if (!(fabsf(found[i] - expected[i]) < 1e-3f)) return 0;
    return 1;
}

/* One call against the calls that it is made of. */
static int check_mlp(llmrun_pool *pool, long tokens, long columns, long inner) {
    llmrun_matrix gate = random_matrix(inner, columns), up = random_matrix(inner, columns);
    llmrun_matrix down = random_matrix(columns, inner);
    const llmrun_gated_mlp mlp = {&gate, &up, &down, 0};
    size_t outer_bytes = (size_t)(tokens * columns) * sizeof(float), inner_bytes = (size_t)(tokens * inner) * sizeof(float);
    float *x = take(outer_bytes), *y = take(outer_bytes), *exact = take(outer_bytes);
    float *g = take(inner_bytes), *u = take(inner_bytes);
    for (long i = 0; i < tokens * columns; i++) x[i] = random_float();
    int wrong = llmrun_mlp(pool, &mlp, x, tokens, y) != 0;
    wrong |= llmrun_linear(pool, &gate, x, tokens, g) | llmrun_linear(pool, &up, x, tokens, u);
    for (long i = 0; i < tokens * inner; i++) g[i] = (float)((double)g[i] / (1 + exp(-(double)g[i])) * (double)u[i]);
    wrong |= llmrun_linear(pool, &down, g, tokens, exact) | !are_near(y, exact, tokens * columns);
    if (wrong) printf("wrong: MLP of %ld tokens, %ld, %ld\n", tokens, columns, inner);
    give_matrix(&gate), give_matrix(&up), give_matrix(&down);
    free(x), free(y), free(exact), free(g), free(u);
    return wrong;
}

static void turn_exactly(float *states, long heads, long dim, const float *cos, const float *sin) {
    for (long h = 0; h < heads; h++, states += dim)
        for (long i = 0; i < dim / 2; i++) {
            float a = states[i], b = states[i + dim / 2];
            states[i] = a * cos[i] - b * sin[i];
            states[i + dim / 2] = b * cos[i + dim / 2] + a * sin[i + dim / 2];
        }
}

static int check_attend(llmrun_pool *pool, long tokens, long past, long kv_heads, long group, long dim) {
    const long heads = kv_heads * group, width = heads * dim, kv_width = kv_heads * dim, columns = 24, all = past + tokens;
    llmrun_matrix matrices[4] = {random_matrix(width, columns), random_matrix(kv_width, columns),
                                 random_matrix(kv_width, columns), random_matrix(columns, width)};
    size_t wide = (size_t)(tokens * width) * sizeof(float), cached = (size_t)(kv_width * all) * sizeof(float);
    float *x = take(wide), *query = take(wide), *key = take(wide), *value = take(wide), *found = take(wide);
    float *turns = take(2 * (size_t)(tokens * dim) * sizeof(float)), *exact = take(wide), *attended = take(wide);
    float *cache = (float *)(void *)take_fenced(2 * cached), *expected = take(2 * cached);
    for (long i = 0; i < tokens * columns; i++) x[i] = random_float();
    for (long i = 0; i < 2 * tokens * dim; i++) turns[i] = random_float();
    for (long i = 0; i < 2 * kv_width * all; i++) expected[i] = cache[i] = random_float();
    float *keys = cache, *values = cache + kv_width * all; /* (kv_heads, all, dim) each */
    const llmrun_attention_block block = {
        .query = &matrices[0], .key = &matrices[1], .value = &matrices[2], .out = &matrices[3], .cos = turns,
        .sin = turns + tokens * dim, .format = LLMRUN_F32, .kv_heads = kv_heads, .head_dim = dim, .past = past,
        .keys = keys, .values = values, .key_head = all * dim, .key_token = dim, .value_head = all * dim,
        .value_token = dim, .scale = 0.3f};
    int wrong = llmrun_attend(pool, &block, x, tokens, found) != 0;
    wrong |= llmrun_linear(pool, &matrices[0], x, tokens, query) | llmrun_linear(pool, &matrices[1], x, tokens, key) |
             llmrun_linear(pool, &matrices[2], x, tokens, value);
    for (long t = 0; t < tokens; t++) {
        turn_exactly(query + t * width, heads, dim, turns + t * dim, turns + (tokens + t) * dim);
        turn_exactly(key + t * kv_width, kv_heads, dim, turns + t * dim, turns + (tokens + t) * dim);
        for (long h = 0; h < kv_heads; h++) {
            size_t at = (size_t)((h * all + past + t) * dim), nbytes = (size_t)dim * sizeof(float);
            memcpy(expected + at, key + t * kv_width + h * dim, nbytes);
            memcpy(expected + kv_width * all + at, value + t * kv_width + h * dim, nbytes);
        }
    }
    wrong |= !are_near(cache, expected, 2 * kv_width * all);
    llmrun_attention_job job = {LLMRUN_F32, kv_heads, group, tokens, all, dim, query, dim, width, expected,
                                expected + kv_width * all, all * dim, dim, all * dim, dim, 0, 0.3f, 0, attended, dim, width};
    wrong |= llmrun_attention(pool, &job) | llmrun_linear(pool, &matrices[3], attended, tokens, exact);
    wrong |= !are_near(found, exact, tokens * columns);
    if (wrong) printf("wrong: attention with its products, %ld after %ld, %ld x %ld of %ld\n", tokens, past, kv_heads, group, dim);
    for (int i = 0; i < 4; i++) give_matrix(&matrices[i]);
    give_fenced((uint8_t *)cache, 2 * cached);
    free(x), free(query), free(key), free(value), free(found), free(turns), free(exact), free(attended), free(expected);
    return wrong;
}

int main(void) {
    int wrong = 0, checks = 0;
    for (int threads = 1; threads <= 3; threads += 2) {
        llmrun_pool *pool = llmrun_pool_new(threads);
        if (!pool) return 2;
        for (int f = 0; f < N_FORMATS; f++) {
            int weights = llmrun_block_of(FORMATS[f]).weights;
            for (long tokens = 1; tokens <= 21; tokens = tokens * 3 - tokens / 2)
                for (long rows = 1; rows <= 37; rows = rows * 3 + 1, checks++)
                    wrong |= check_linear(pool, FORMATS[f], rows, weights == 1 ? 35 + rows : 3 * weights, tokens);
        }
        for (int f = 0; f < N_FORMATS; f++)
            for (long blocks = 1; blocks <= 33 && llmrun_block_of(FORMATS[f]).weights > 1; blocks += 16, checks++)
                for (int plain = 0; plain < 3; plain++)
                    wrong |= check_round(pool, FORMATS[f], FORMATS[plain], 3, blocks);
        for (long queries = 1; queries <= 9; queries += 4, checks++) {
            wrong |= check_attention(pool, 1, queries, 70, 33, 0);
            wrong |= check_attention(pool, 5, queries, 601, 64, 40);
            wrong |= check_attention(pool, 1, 17 * queries, 13 + 17 * queries, 33, 0);
            wrong |= check_attention(pool, 3, 24 + queries, 201, 80, 40);
        }
        for (long columns = 1; columns <= 4000; columns = 5 * columns + 1, checks++)
            for (long tokens = 1; tokens <= 65; tokens *= 8) wrong |= check_rms_norm(pool, tokens, columns);
        for (long tokens = 1; tokens <= 16; tokens = 2 * tokens + 1, checks++) {
            wrong |= check_mlp(pool, tokens, 24, 35) | check_mlp(pool, tokens, 7, 129);
            wrong |= check_attend(pool, tokens, 0, 2, 1, 34) | check_attend(pool, tokens, 5, 1, 6, 32);
        }
        llmrun_pool_free(pool);
    }
    llmrun_matrix none = {LLMRUN_Q4_0, 1, 33, &checks, 18, NULL, 0, 0};
    wrong |= llmrun_round(NULL, &none, LLMRUN_Q8_0, NULL, &checks) != -2;
    wrong |= llmrun_linear(NULL, &none, NULL, 1, NULL) != -2;
    printf("%s: %d checks, %s\n", llmrun_variant(), checks, wrong ? "wrong" : "right");
    return wrong;
}
