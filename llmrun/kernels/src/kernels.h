/* What each instruction set brings: one table of functions, of which dispatch.c takes one. */
#ifndef LLMRUN_KERNELS_H
#define LLMRUN_KERNELS_H

#include "llmrun.h"

/* As llmrun_linear, which has checked the arguments. */
typedef int (*llmrun_linear_function)(llmrun_pool *, const llmrun_matrix *, const float *x, long tokens, float *y);

typedef struct {
    const char *name;
    llmrun_linear_function rows_float; /* F32, F16, BF16, F8_E4M3 (with scales); any tokens */
    int (*floats)(llmrun_pool *, const llmrun_matrix *, float *out); /* the same formats */
    llmrun_linear_function rows_int;   /* blocks of integers; up to LLMRUN_FEW tokens */
    llmrun_linear_function matmul_int; /* the same for any more */
    int (*attention)(llmrun_pool *, const llmrun_attention_job *);
    void (*remainders)(const float *x, long columns, float *left); /* what int8 leaves of a token's activations */
    int (*round)(llmrun_pool *, const llmrun_matrix *plain, int format, void *out);
    void (*rms_norm)(llmrun_pool *, const float *x, const float *weight, long tokens, long columns, float epsilon,
                     float *y);
} llmrun_kernels;

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
