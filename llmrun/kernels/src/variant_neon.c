/* 64-bit ARM with the dot product of int8 (ARMv8.2 and later). */
#include "kernels.h"

#if defined(__aarch64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("dotprod"))), apply_to = function)
#else
#pragma GCC target("arch=armv8.2-a+dotprod")
#endif
#define LLMRUN_VARIANT neon
#define LLMRUN_NEON 1
#include "simd_neon.h"

#include "bodies.inc"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
