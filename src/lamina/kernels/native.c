/* The tables of functions by instruction set, from which Python chooses. */
#include "native.h"

#define EXPORTED __attribute__((visibility("default")))

#if defined(__x86_64__)
#define LEVELS(name) {name##_baseline, name##_avx2, name##_avx512}
#define DECLARE(kind, name) extern kind name##_baseline, name##_avx2, name##_avx512
#else
#define LEVELS(name) {name##_baseline, name##_baseline, name##_baseline}
#define DECLARE(kind, name) extern kind name##_baseline
#endif

DECLARE(gather_function, lamina_gather);
DECLARE(norm_act_function, lamina_norm_act_forward);
DECLARE(norm_act_function, lamina_norm_act_backward);
EXPORTED gather_function *const lamina_gather[3] = LEVELS(lamina_gather);
EXPORTED norm_act_function *const lamina_norm_act_forward[3] = LEVELS(lamina_norm_act_forward);
EXPORTED norm_act_function *const lamina_norm_act_backward[3] = LEVELS(lamina_norm_act_backward);

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
