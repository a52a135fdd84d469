/* x86-64 with AVX-512 (F, BW, DQ, VL, VNNI): Ice Lake, Zen 4 and later. */
#include "kernels.h"

#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c"))), \
                             apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")
#endif
#define LLMRUN_VARIANT avx512
#define LLMRUN_AVX512 1
#include "simd_avx512.h"

#include "bodies.inc"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
