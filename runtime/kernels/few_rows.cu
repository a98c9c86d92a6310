// Products of few rows in 16 bits (few.cuh), each a kernel of its own that starts early.
#include "early.cuh"
#include "few.cuh"

#define FEW(name, T, what, WHAT)                                                                                      \
    extern "C" __global__ void __launch_bounds__(few::THREADS, 1)                                                     \
        few_rows_##name##_##what(const T *w, const T *x, const float *bias, void *y, uint32_t inner, uint32_t outer,  \
                                 uint32_t rows, uint32_t phase) {                                                     \
        let_next_start();                                                                                             \
        few::products<WHAT>(w, x, bias, y, {inner, outer, rows, phase}, wait_for_last);                               \
    }
#define EACH(name, T)                                                                                                 \
    FEW(name, T, plain, PLAIN)                                                                                        \
    FEW(name, T, added, ADDED)                                                                                        \
    FEW(name, T, gated, GATED)
EACH(f16, __half)
EACH(bf16, __nv_bfloat16)
