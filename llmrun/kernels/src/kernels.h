/* What each instruction set brings: one table of functions, of which dispatch.c takes one. */
#ifndef LLMRUN_KERNELS_H
#define LLMRUN_KERNELS_H

#include "llmrun.h"

/* As llmrun_linear, which has checked the arguments. */
typedef int (*llmrun_linear_function)(llmrun_pool *, const llmrun_matrix *, const float *x, long tokens, float *y);
/* As llmrun_linear_fine where `fine` is not 0. */
typedef int (*llmrun_int_function)(llmrun_pool *, const llmrun_matrix *, const float *x, long tokens, int fine, float *y);

/* What a product gave as queries, keys or values, and where it goes: normed and turned if need be, in a cache's format. */
typedef struct {
    const float *from; /* (tokens, heads * head_dim) */
    long heads, head_dim;
    int is_paired;     /* each head is x0 y0 x1 y1, to be x0 x1 y0 y1 */
    const float *bias; /* after that; NULL: none */
    const float *norm; /* as llmrun_rms_norm, of each head; NULL: none */
    float epsilon;
    const float *cos, *sin; /* (tokens, head_dim); NULL: not turned */
    int format;             /* of what it goes to: LLMRUN_F32 or LLMRUN_F16 */
    void *to;
    long to_head, to_token; /* strides in elements */
} llmrun_heads;

typedef struct {
    const char *name;
    llmrun_linear_function rows_float; /* F32, F16, BF16, F8_E4M3 (with scales); any tokens */
    int (*floats)(llmrun_pool *, const llmrun_matrix *, float *out); /* the same formats */
    llmrun_int_function rows_int;      /* blocks of integers; up to LLMRUN_FEW tokens */
    llmrun_int_function matmul_int;    /* the same for any more */
    int (*attention)(llmrun_pool *, const llmrun_attention_job *);
    int (*round)(llmrun_pool *, const llmrun_matrix *plain, int format, const float *importance, void *out);
    void (*rms_norm)(llmrun_pool *, const float *x, const float *weight, long tokens, long columns, float epsilon,
                     float *y);
    void (*gate)(float *gate, const float *up, long n); /* gate = silu(gate) * up */
    void (*place_heads)(const llmrun_heads *, long token);
} llmrun_kernels;

/* Numbers of a head at the most. */
enum { LLMRUN_MOST_HEAD_DIM = 1024 };

/* The one that this CPU computes with. */
const llmrun_kernels *llmrun_kernels_here(void);

/* A weight is read once for so many tokens; with more of them rows_int gives way to matmul_int. */
enum { LLMRUN_FEW = 4 };

/* Weights and bytes of one block; 0 where the format is not known. */
typedef struct {
    int weights, bytes;
} llmrun_block;
llmrun_block llmrun_block_of(int format);

#if defined(__x86_64__)
extern const llmrun_kernels llmrun_kernels_avx512, llmrun_kernels_avx2;
#elif defined(__aarch64__)
extern const llmrun_kernels llmrun_kernels_neon;
#endif
extern const llmrun_kernels llmrun_kernels_portable;

#endif
