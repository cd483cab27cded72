/* The functions for AVX2. */
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
#include "norm_act.inc"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
