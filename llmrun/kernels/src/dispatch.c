/* Picks the table of this CPU, checks the arguments, and gives each format to its kernel. */
#include <stdlib.h>
#include <string.h>

#include "kernels.h"
#include "pool.h"

#if defined(__x86_64__)
static int has_avx512(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vnni");
}

static int has_avx2(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
static int has_neon(void) { return (getauxval(AT_HWCAP) & (1UL << 20)) != 0; } /* HWCAP_ASIMDDP */
#elif defined(__aarch64__)
static int has_neon(void) { return 1; } /* Apple's all have it */
#endif

static int always(void) { return 1; }

static const struct {
    const llmrun_kernels *kernels;
    int (*has)(void);
} VARIANTS[] = {
#if defined(__x86_64__)
    {&llmrun_kernels_avx512, has_avx512},
    {&llmrun_kernels_avx2, has_avx2},
#elif defined(__aarch64__)
    {&llmrun_kernels_neon, has_neon},
#endif
    {&llmrun_kernels_portable, always},
};

enum { N_VARIANTS = sizeof VARIANTS / sizeof VARIANTS[0] };

/* The best that the CPU has, or the one that is asked for if the CPU has it. */
static const llmrun_kernels *pick(void) {
    const char *wanted = getenv("LLMRUN_KERNELS");
    const llmrun_kernels *best = NULL;
    for (int i = 0; i < N_VARIANTS; i++) {
        if (!VARIANTS[i].has()) continue;
        if (!best) best = VARIANTS[i].kernels;
        if (wanted && !strcmp(wanted, VARIANTS[i].kernels->name)) return VARIANTS[i].kernels;
    }
    return best;
}

static const llmrun_kernels *kernels(void) {
    static const llmrun_kernels *_Atomic picked; /* every thread would pick the same */
    const llmrun_kernels *known = picked;
    if (!known) picked = known = pick();
    return known;
}

const llmrun_kernels *llmrun_kernels_here(void) { return kernels(); }

int llmrun_abi(void) { return 7; }

const char *llmrun_variant(void) { return kernels()->name; }

int llmrun_supports(int format) { return llmrun_block_of(format).weights != 0; }

static int is_matrix(const llmrun_matrix *weight) {
    if (!weight || !weight->data || weight->rows < 1 || weight->columns < 1) return 0;
    llmrun_block block = llmrun_block_of(weight->format);
    if (!block.weights || weight->columns % block.weights) return 0;
    if (weight->scales && (weight->format != LLMRUN_F8_E4M3 || weight->block_rows < 1 || weight->block_columns < 1))
        return 0;
    return weight->row_bytes >= weight->columns / block.weights * block.bytes;
}

/* F8_E4M3 without scales has one, of 1. */
static llmrun_matrix with_scales(const llmrun_matrix *weight) {
    static const float ONE = 1;
    llmrun_matrix result = *weight;
    if (!result.scales) {
        result.scales = &ONE;
        result.block_rows = result.rows;
        result.block_columns = result.columns;
    }
    return result;
}

static int is_plain(int format) { return llmrun_block_of(format).weights == 1; }

int llmrun_floats(llmrun_pool *pool, const llmrun_matrix *weight, float *out) {
    if (!pool || !is_matrix(weight) || !is_plain(weight->format) || !out) return -2;
    llmrun_matrix scaled = with_scales(weight);
    return kernels()->floats(pool, &scaled, out);
}

static int multiply(llmrun_pool *pool, const llmrun_matrix *weight, const float *x, long tokens, int fine, float *y) {
    if (!pool || !is_matrix(weight) || !x || !y || tokens < 1) return -2;
    const llmrun_kernels *table = kernels();
    if (is_plain(weight->format)) {
        llmrun_matrix scaled = with_scales(weight);
        return table->rows_float(pool, &scaled, x, tokens, y);
    }
    return (tokens <= LLMRUN_FEW ? table->rows_int : table->matmul_int)(pool, weight, x, tokens, fine, y);
}

int llmrun_linear(llmrun_pool *pool, const llmrun_matrix *weight, const float *x, long tokens, float *y) {
    return multiply(pool, weight, x, tokens, 0, y);
}

int llmrun_linear_fine(llmrun_pool *pool, const llmrun_matrix *weight, const float *x, long tokens, float *y) {
    return multiply(pool, weight, x, tokens, 1, y);
}

int llmrun_round(llmrun_pool *pool, const llmrun_matrix *plain, int format, const float *importance, void *out) {
    if (!pool || !is_matrix(plain) || !is_plain(plain->format) || plain->format == LLMRUN_F8_E4M3 || !out) return -2;
    int block = llmrun_block_of(format).weights;
    if (block < 2 || plain->columns % block) return -2;
    if (plain->row_bytes != plain->columns * llmrun_block_of(plain->format).bytes) return -2;
    return kernels()->round(pool, plain, format, importance, out);
}

static int is_attention(const llmrun_attention_job *job) {
    if (!job || !job->query || !job->keys || !job->values || !job->out) return 0;
    if (!is_plain(job->format) || job->format == LLMRUN_F8_E4M3) return 0;
    return job->kv_heads > 0 && job->group > 0 && job->queries > 0 && job->head_dim > 0 &&
           job->tokens >= job->queries && job->window >= 0;
}

int llmrun_attention(llmrun_pool *pool, const llmrun_attention_job *job) {
    if (!pool || !is_attention(job)) return -2;
    return kernels()->attention(pool, job);
}

int llmrun_rms_norm(llmrun_pool *pool, const float *x, const float *weight, long tokens, long columns, float epsilon,
                    float *y) {
    if (!pool || !x || !weight || !y || tokens < 1 || columns < 1) return -2;
    kernels()->rms_norm(pool, x, weight, tokens, columns, epsilon, y);
    return 0;
}
