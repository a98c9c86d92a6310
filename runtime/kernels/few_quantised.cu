// Products of few rows with quantised weights (few_quantised.cuh), each a kernel of its own that starts early, and the rounding of
// their rows.
#include "early.cuh"
#include "few_quantised.cuh"

#define FEW(name, F, ROWS, what, WHAT)                                                                                \
    extern "C" __global__ void __launch_bounds__(few_quantised::THREADS, 1)                                           \
        few_##name##_##ROWS##_##what(const uint8_t *w, const void *x, const float *bias, float *y, uint32_t inner,    \
                                     uint32_t outer, uint32_t rows, uint32_t phase, uint32_t rounded) {               \
        let_next_start();                                                                                             \
        few_quantised::products<packed::F, ROWS, WHAT>(w, few_quantised::Given{x, rounded != 0}, bias, \
                                                                      y, {inner, outer, rows, phase}, wait_for_last); \
    }
// Rounds rows for such products: `parts` of `phase` numbers of each follow each other.
#define ROUND(name, F, ROWS)                                                                                          \
    extern "C" __global__ void round_##name##_##ROWS(const float *x, uint8_t *out, uint32_t inner, uint32_t rows,     \
                                                     uint32_t phase) {                                                \
        in_turn();                                                                                                    \
        rounded::Rows<packed::F, ROWS> to(out, phase);                                                                \
        to.at += (size_t)blockIdx.y * to.bytes();                                                                     \
        uint32_t thread = blockIdx.x * blockDim.x + threadIdx.x, threads = gridDim.x * blockDim.x;                    \
        auto load = [&](uint32_t row, uint32_t k) { return four(x + (size_t)row * inner + k); };                      \
        rounded::round(to, load, inner, blockIdx.y * phase, rows, ROWS, thread, threads);                             \
    }
#define SIZE(name, F, ROWS)                                                                                           \
    FEW(name, F, ROWS, plain, PLAIN)                                                                                  \
    FEW(name, F, ROWS, added, ADDED)                                                                                  \
    FEW(name, F, ROWS, gated, GATED)                                                                                  \
    ROUND(name, F, ROWS)
#define EACH(name, F)                                                                                                 \
    SIZE(name, F, 8)                                                                                                  \
    SIZE(name, F, 16)                                                                                                 \
    SIZE(name, F, 32)                                                                                                 \
    SIZE(name, F, 64)
EACH(q8_0, Q8_0)
EACH(q4_0, Q4_0)
EACH(q4_k, Q4_K)
