// Products of up to 64 rows in 16 bits (dozens.cuh), each a kernel of its own that starts early.
#include "early.cuh"
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#include "dozens.cuh"
#define WORK(WHAT, TILES)                                                                                             \
    let_next_start();                                                                                                 \
    dozens::products<WHAT, TILES>(w, x, bias, y, {inner, outer, rows, ranks, slots}, wait_for_last)
#else
#include "normed.cuh"
#define WORK(WHAT, TILES)
#endif

#define DOZENS(name, T, what, WHAT, TILES)                                                                            \
    extern "C" __global__ void __launch_bounds__(256, 1) dozens_##name##_##what##_##TILES(                            \
        const T *w, const T *x, const float *bias, void *y, uint32_t inner, uint32_t outer, uint32_t rows,            \
        uint32_t ranks, uint32_t slots) {                                                                             \
        WORK(WHAT, TILES);                                                                                            \
    }
#define EACH_TILES(name, T, what, WHAT)                                                                               \
    DOZENS(name, T, what, WHAT, 2)                                                                                    \
    DOZENS(name, T, what, WHAT, 4)                                                                                    \
    DOZENS(name, T, what, WHAT, 8)
#define EACH(name, T)                                                                                                 \
    EACH_TILES(name, T, plain, PLAIN)                                                                                 \
    EACH_TILES(name, T, added, ADDED)                                                                                 \
    EACH_TILES(name, T, gated, GATED)
EACH(f16, __half)
EACH(bf16, __nv_bfloat16)
