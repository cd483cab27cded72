/* The function for AVX2: norm_act makes training steps no faster than torch does. */
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif
#define LANES 8
#define NAMED(name) name##_avx2
#include "vectors.h"

#include "gather.inc"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
