/* The tables of functions by instruction set, from which Python chooses. */
#include "native.h"

#define EXPORTED __attribute__((visibility("default")))

#if defined(__x86_64__)
extern gather_function lamina_gather_baseline, lamina_gather_avx2, lamina_gather_avx512;
extern norm_act_function lamina_norm_act_forward_avx512, lamina_norm_act_backward_avx512;
#define GATHER {lamina_gather_baseline, lamina_gather_avx2, lamina_gather_avx512}
#define NORM_ACT(name) {0, 0, lamina_norm_act_##name##_avx512}
#else
extern gather_function lamina_gather_baseline;
#define GATHER {lamina_gather_baseline, lamina_gather_baseline, lamina_gather_baseline}
#define NORM_ACT(name) {0, 0, 0}
#endif

EXPORTED gather_function *const lamina_gather[3] = GATHER;
EXPORTED norm_act_function *const lamina_norm_act_forward[3] = NORM_ACT(forward);
EXPORTED norm_act_function *const lamina_norm_act_backward[3] = NORM_ACT(backward);

/* The widest instruction set of this processor: 0 for the baseline, 1 for AVX2, 2 for AVX-512. */
EXPORTED int32_t lamina_find_level(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
        return 0;
    int has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                     __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    return has_avx512 ? 2 : 1;
#else
    return 0;
#endif
}
