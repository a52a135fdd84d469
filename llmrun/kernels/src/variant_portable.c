/* Any CPU: plain C and the compiler's vectors of four floats. */
#include "kernels.h"

#define LLMRUN_VARIANT portable
#define LLMRUN_PORTABLE 1
#include "simd_portable.h"

#include "bodies.inc"
