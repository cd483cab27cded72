/* The functions for AVX-512. */
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma"))),    \
                             apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma")
#endif
#define LANES 16
#define NAMED(name) name##_avx512
#include "vectors.h"

#include "gather.inc"
#include "norm_act.inc"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
