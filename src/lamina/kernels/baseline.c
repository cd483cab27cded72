/* The function for the compiler's default instruction set. */
#define LANES 4
#define NAMED(name) name##_baseline
#include "vectors.h"

#include "gather.inc"
