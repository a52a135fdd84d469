/* The C interface of llmrun's kernels: what ctypes loads. Weights are as they lie in a file, activations fp32. */
#ifndef LLMRUN_H
#define LLMRUN_H

#if defined(__GNUC__)
#define LLMRUN_API __attribute__((visibility("default")))
#else
#define LLMRUN_API
#endif

/* ggml's own numbers of the formats, above 1000 those that ggml has not */
enum {
    LLMRUN_F32 = 0,
    LLMRUN_F16 = 1,
    LLMRUN_Q4_0 = 2,
    LLMRUN_Q4_1 = 3,
    LLMRUN_Q5_0 = 6,
    LLMRUN_Q5_1 = 7,
    LLMRUN_Q8_0 = 8,
    LLMRUN_Q4_K = 12,
    LLMRUN_Q5_K = 13,
    LLMRUN_Q6_K = 14,
    LLMRUN_BF16 = 30,
    LLMRUN_F8_E4M3 = 1001
};

typedef struct llmrun_pool llmrun_pool; /* threads and their grow-only workspaces */

/* `rows` rows of `row_bytes` contiguous bytes, at any address: nothing is aligned, nothing is read behind the last.
 * LLMRUN_F8_E4M3 may have scales beside it: one for each block of block_rows x block_columns weights, cut off at the
 * edges, contiguous rows of blocks; NULL: 1. */
typedef struct {
    int format;
    long rows, columns;
    const void *data;
    long row_bytes;
    const float *scales;
    long block_rows, block_columns;
} llmrun_matrix;

/* Attention of `queries` new tokens over `tokens` of a cache, of which the last `queries` are the new ones themselves.
 * Query head h reads key head h / group. Strides of keys and values are in elements, those within a head's
 * `head_dim` are 1, of query and out too. */
typedef struct {
    int format; /* of keys and values: LLMRUN_F32, LLMRUN_F16 or LLMRUN_BF16 */
    long kv_heads, group, queries, tokens, head_dim;
    const float *query;
    long query_head, query_token;
    const void *keys, *values;
    long key_head, key_token, value_head, value_token;
    long window;   /* a token sees itself and the window - 1 before it; 0: all */
    float scale;   /* of the products, before softcap */
    float softcap; /* softcap * tanh(product / softcap); 0: none */
    float *out;
    long out_head, out_token;
} llmrun_attention_job;

/* A gated MLP (SwiGLU, Shazeer 2020): down(silu(gate(x)) * up(x)). */
typedef struct {
    const llmrun_matrix *gate, *up, *down;
    int fine; /* products as llmrun_linear_fine */
} llmrun_gated_mlp;

/* Attention with what is around it: queries, keys and values of new tokens, which are turned (RoPE, Su et al. 2021, by
 * halves of a head) and put into the cache after those before them, and the product of what they attend to. */
typedef struct {
    const llmrun_matrix *query, *key, *value, *out;
    const float *query_bias, *key_bias, *value_bias; /* NULL: none */
    const float *query_norm, *key_norm;              /* of each head, as llmrun_rms_norm; NULL: none */
    float epsilon;
    int fine;
    int query_paired, key_paired; /* rows of a head lie x0 y0 x1 y1, the halves being x and y */
    const float *cos, *sin;       /* (tokens, head_dim) */
    int format;                   /* of the cache: LLMRUN_F32 or LLMRUN_F16 */
    long kv_heads, head_dim, past; /* past: tokens in the cache */
    void *keys, *values;
    long key_head, key_token, value_head, value_token; /* strides in elements */
    float scale;
} llmrun_attention_block;

LLMRUN_API int llmrun_abi(void); /* 7 */
/* "avx512", "avx2", "neon" or "portable": the best that this CPU has; the environment's LLMRUN_KERNELS names a lesser */
LLMRUN_API const char *llmrun_variant(void);

/* threads: with the one that calls; NULL where there is no memory for it. A pool serves one call at a time. */
LLMRUN_API llmrun_pool *llmrun_pool_new(int threads);
LLMRUN_API void llmrun_pool_free(llmrun_pool *pool);
LLMRUN_API int llmrun_pool_threads(const llmrun_pool *pool);

LLMRUN_API int llmrun_supports(int format); /* 1 where llmrun_linear multiplies by it */
/* y[t * rows + r] = sum over c of W[r, c] * x[t * columns + c], tokens >= 1. 0: done, -1: no memory, -2: bad arguments */
LLMRUN_API int llmrun_linear(llmrun_pool *pool, const llmrun_matrix *weight, const float *x, long tokens, float *y);
/* The same with 16 bits of every activation, where llmrun_linear takes 8 (formats of integers): of bytes, two products
 * in the same pass over the weights. */
LLMRUN_API int llmrun_linear_fine(llmrun_pool *pool, const llmrun_matrix *weight, const float *x, long tokens, float *y);
/* out[r * columns + c] = W[r, c], its scale applied: F32, F16, BF16, F8_E4M3. 0: done, -2: bad arguments */
LLMRUN_API int llmrun_floats(llmrun_pool *pool, const llmrun_matrix *weight, float *out);
/* One row to float, without scales that lie beside it, exactly as ggml's reference has it. 0: done, -2: no such format, or columns that do not divide */
LLMRUN_API int llmrun_dequantise(int format, const void *row, long columns, float *out);
/* The rows of an F32, F16 or BF16 matrix, which lie one after another, rounded to a format of integers so that the squared
 * error is small, each column's times its `importance`, above 0 (NULL: 1); the same bytes with any CPU and any number of
 * threads. 0: done, -2: bad arguments */
LLMRUN_API int llmrun_round(llmrun_pool *pool, const llmrun_matrix *plain, int format, const float *importance,
                            void *out);
/* 0: done, -1: no memory, -2: bad arguments */
LLMRUN_API int llmrun_attention(llmrun_pool *pool, const llmrun_attention_job *job);
/* y[t, c] = weight[c] * x[t, c] / sqrt(epsilon + the mean of the squares of token t). 0: done, -2: bad arguments */
LLMRUN_API int llmrun_rms_norm(llmrun_pool *pool, const float *x, const float *weight, long tokens, long columns,
                               float epsilon, float *y);
/* y: (tokens, rows of down). 0: done, -1: no memory, -2: bad arguments */
LLMRUN_API int llmrun_mlp(llmrun_pool *pool, const llmrun_gated_mlp *mlp, const float *x, long tokens, float *y);
/* y: (tokens, rows of out). 0: done, -1: no memory, -2: bad arguments */
LLMRUN_API int llmrun_attend(llmrun_pool *pool, const llmrun_attention_block *block, const float *x, long tokens,
                             float *y);

#endif
