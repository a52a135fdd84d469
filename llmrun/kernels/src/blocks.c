/* The parts of a layer that are several products: a few tokens go through each in one call. */
#include "kernels.h"
#include "pool.h"

typedef int (*linear)(llmrun_pool *, const llmrun_matrix *, const float *, long, float *);

static linear linear_of(int fine) { return fine ? llmrun_linear_fine : llmrun_linear; }

typedef struct {
    float *gate;
    const float *up;
    long columns;
} gate_job;

static void gate_part(void *context, long token, int thread) {
    const gate_job *job = context;
    (void)thread;
    llmrun_kernels_here()->gate(job->gate + token * job->columns, job->up + token * job->columns, job->columns);
}

int llmrun_mlp(llmrun_pool *pool, const llmrun_gated_mlp *mlp, const float *x, long tokens, float *y) {
    if (!pool || !mlp || !mlp->gate || !mlp->up || !mlp->down || tokens < 1) return -2;
    const long inner = mlp->gate->rows;
    if (mlp->up->rows != inner || mlp->down->columns != inner || mlp->up->columns != mlp->gate->columns) return -2;
    float *gate = llmrun_pool_outer(pool, 2 * (size_t)(tokens * inner) * sizeof(float));
    if (!gate) return -1;
    float *up = gate + tokens * inner;
    linear product = linear_of(mlp->fine);
    int status = product(pool, mlp->gate, x, tokens, gate);
    if (!status) status = product(pool, mlp->up, x, tokens, up);
    if (status) return status;
    gate_job job = {gate, up, inner};
    llmrun_pool_run(pool, gate_part, &job, tokens);
    return product(pool, mlp->down, gate, tokens, y);
}

static int is_block(const llmrun_attention_block *block, long tokens) {
    if (!block->query || !block->key || !block->value || !block->out || !block->keys || !block->values) return 0;
    if (tokens < 1 || block->past < 0 || !block->cos || !block->sin || block->kv_heads < 1) return 0;
    if (block->format != LLMRUN_F32 && block->format != LLMRUN_F16) return 0;
    if (block->head_dim < 2 || block->head_dim % 2 || block->head_dim > LLMRUN_MOST_HEAD_DIM) return 0;
    const long queries = block->query->rows, keys = block->kv_heads * block->head_dim;
    if (queries % keys || block->key->rows != keys || block->value->rows != keys) return 0;
    if (block->key->columns != block->query->columns || block->value->columns != block->query->columns) return 0;
    return block->out->columns == queries;
}

static void place_part(void *context, long token, int thread) {
    const llmrun_heads *const *all = context;
    (void)thread;
    for (; *all; all++) llmrun_kernels_here()->place_heads(*all, token);
}

static void *at_token(void *cache, int format, long token, long stride) {
    return (char *)cache + token * stride * (format == LLMRUN_F32 ? 4 : 2);
}

int llmrun_attend(llmrun_pool *pool, const llmrun_attention_block *block, const float *x, long tokens, float *y) {
    if (!pool || !block || !is_block(block, tokens)) return -2;
    const long width = block->query->rows, dim = block->head_dim, kv_width = block->kv_heads * dim;
    /* what the queries became makes room for what they attended to */
    float *query = llmrun_pool_outer(pool, (size_t)(tokens * (2 * width + 2 * kv_width)) * sizeof(float));
    if (!query) return -1;
    float *turned = query + tokens * width, *key = turned + tokens * width, *value = key + tokens * kv_width;
    linear product = linear_of(block->fine);
    int status = product(pool, block->query, x, tokens, query);
    if (!status) status = product(pool, block->key, x, tokens, key);
    if (!status) status = product(pool, block->value, x, tokens, value);
    if (status) return status;
    const int format = block->format;
    void *keys = at_token(block->keys, format, block->past, block->key_token);
    void *values = at_token(block->values, format, block->past, block->value_token);
    const llmrun_heads queries = {query, width / dim, dim, block->query_paired, block->query_bias, block->query_norm,
                                  block->epsilon, block->cos, block->sin, LLMRUN_F32, turned, dim, width};
    const llmrun_heads new_keys = {key, block->kv_heads, dim, block->key_paired, block->key_bias, block->key_norm,
                                   block->epsilon, block->cos, block->sin, format, keys, block->key_head, block->key_token};
    const llmrun_heads new_values = {value, block->kv_heads, dim, 0, block->value_bias, NULL,
                                     0, NULL, NULL, format, values, block->value_head, block->value_token};
    const llmrun_heads *all[] = {&queries, &new_keys, &new_values, NULL};
    llmrun_pool_run(pool, place_part, (void *)all, tokens);
    const llmrun_attention_job job = {
        format, block->kv_heads, width / kv_width, tokens, block->past + tokens, dim, turned, dim, width,
        block->keys, block->values, block->key_head, block->key_token, block->value_head, block->value_token,
        0, block->scale, 0, query, dim, width};
    status = llmrun_attention(pool, &job);
    return status ? status : product(pool, block->out, query, tokens, y);
}
