/* Vectors of LANES float32 numbers, as wide as the registers of an instruction set; in memory they
   may be bf16.

   A file for an instruction set defines LANES and NAMED, which adds the set's name to a function's
   name, and includes this header, then the functions. Each channel keeps its lane, so the width of
   a vector does not change results. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#if LANES > 4
#include <immintrin.h>
#endif

#include "native.h"

#define INLINE static inline __attribute__((always_inline))

typedef float lanes __attribute__((vector_size(4 * LANES)));
typedef int32_t int_lanes __attribute__((vector_size(4 * LANES)));
typedef uint32_t bit_lanes __attribute__((vector_size(4 * LANES)));
typedef uint16_t half_lanes __attribute__((vector_size(2 * LANES)));
typedef uint8_t byte_lanes __attribute__((vector_size(LANES)));

/* Intrinsics where GCC 12 finds no single instruction. The compiler itself may not fuse products
 * with sums. */
#if LANES == 16 /* with what norm_act.inc needs */
typedef __mmask16 mask;
INLINE mask is_above(lanes a, lanes b) {
    return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GT_OQ);
}
INLINE mask is_at_most(lanes a, lanes b) {
    return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_LE_OQ);
}
INLINE mask is_nan(lanes a) { return _mm512_cmp_ps_mask((__m512)a, (__m512)a, _CMP_UNORD_Q); }
INLINE mask is_equal(bit_lanes a, bit_lanes b) {
    return _mm512_cmpeq_epi32_mask((__m512i)a, (__m512i)b);
}
INLINE lanes choose(mask is, lanes yes, lanes no) {
    return (lanes)_mm512_mask_mov_ps((__m512)no, is, (__m512)yes);
}
INLINE lanes fma_lanes(lanes a, lanes b, lanes c) {
    return (lanes)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
INLINE bit_lanes widen(half_lanes halves) {
    return (bit_lanes)_mm512_cvtepu16_epi32((__m256i)halves);
}
INLINE half_lanes narrow(bit_lanes bits) {
    return (half_lanes)_mm512_cvtepi32_epi16((__m512i)bits);
}
INLINE lanes to_numbers(byte_lanes bytes) {
    return (lanes)_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32((__m128i)bytes));
}
#elif LANES == 8
INLINE bit_lanes widen(half_lanes halves) {
    return (bit_lanes)_mm256_cvtepu16_epi32((__m128i)halves);
}
INLINE half_lanes narrow(bit_lanes bits) {
    __m256i packed = _mm256_packus_epi32((__m256i)bits, (__m256i)bits);
    return (half_lanes)_mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08));
}
INLINE lanes to_numbers(byte_lanes bytes) {
    return (lanes)_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_set_epi64x(0, (int64_t)bytes)));
}
#else
INLINE bit_lanes widen(half_lanes halves) { return __builtin_convertvector(halves, bit_lanes); }
INLINE half_lanes narrow(bit_lanes bits) { return __builtin_convertvector(bits, half_lanes); }
INLINE lanes to_numbers(byte_lanes bytes) {
    return __builtin_convertvector(__builtin_convertvector(bytes, int_lanes), lanes);
}
#endif

INLINE void copy(void *to, const void *from, int64_t count, size_t size) {
    if (count == LANES)
        memcpy(to, from, LANES * size);
    else
        memcpy(to, from, (size_t)count * size);
}

INLINE lanes load(const void *base, int64_t index, int64_t count, int is_bf16) {
    if (is_bf16) {
        half_lanes halves = {0};
        copy(&halves, (const uint16_t *)base + index, count, sizeof(uint16_t));
        return (lanes)(widen(halves) << 16);
    }
    lanes values = {0};
    copy(&values, (const float *)base + index, count, sizeof(float));
    return values;
}

/* Rounds to the nearest bf16, to even if two are equally near, like torch. NaN stays NaN unless
   only its last 16 bits are set, which no processor's arithmetic does. */
INLINE void store(void *base, int64_t index, int64_t count, int is_bf16, lanes values) {
    if (is_bf16) {
        bit_lanes bits = (bit_lanes)values;
        half_lanes halves = narrow((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
        copy((uint16_t *)base + index, &halves, count, sizeof(uint16_t));
    } else
        copy((float *)base + index, &values, count, sizeof(float));
}
