/* x86-64 with AVX2, FMA and F16C: Haswell, Zen and later. */
#include "kernels.h"

#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c")
#endif
#define LLMRUN_VARIANT avx2
#define LLMRUN_AVX2 1
#include "simd_avx2.h"

#include "bodies.inc"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
