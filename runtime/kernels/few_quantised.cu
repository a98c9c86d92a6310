// Products of few rows with quantised weights, each a kernel of its own that starts early, and the rounding of their rows: of up to
// eight rows by a ring (streamed_quantised.cuh), whose shared memory begins with barriers and sums and has rows at byte `rows_at` and
// so many stages at byte `stages_at`; of more by few_quantised.cuh.
#include "early.cuh"
#include "streamed_quantised.cuh"

#define FEWEST(name, F, what, WHAT)                                                                                   \
    extern "C" __global__ void __launch_bounds__(ring::THREADS, 1) few_##name##_8_##what(                             \
        const uint8_t *w, const void *x, const float *bias, float *y, uint32_t inner, uint32_t outer, uint32_t rows,  \
        uint32_t phase, uint32_t rounded, uint32_t rows_at, uint32_t stages_at, uint32_t stages) {                    \
        extern __shared__ uint4 shared[];                                                                             \
        let_next_start();                                                                                             \
        uint8_t *memory = reinterpret_cast<uint8_t *>(shared);                                                        \
        float *sums = reinterpret_cast<float *>(memory + ring::BARRIERS);                                             \
        const few_quantised::Sizes of{inner, outer, rows, phase};                                                     \
        const ring::Room room{sums, sums + 2 * ring::WARPS * streamed_quantised::SUMS, memory + rows_at};             \
        ring::Ring ring(memory, memory + stages_at, stages, streamed_quantised::STAGE<packed::F>);                    \
        ring.begin();                                                                                                 \
        if (threadIdx.x >= ring::CONSUMERS) {                                                                         \
            streamed_quantised::send<packed::F, WHAT>(w, of, ring);                                                   \
            return ring::all_sent();                                                                                  \
        }                                                                                                             \
        wait_for_last();                                                                                              \
        const streamed_quantised::Given given{x, rounded != 0};                                                       \
        streamed_quantised::products<packed::F, WHAT>(given, bias, y, of, room, ring);                                \
    }

#define FEW(name, F, ROWS, what, WHAT)                                                                                \
    extern "C" __global__ void __launch_bounds__(few_quantised::THREADS, 1)                                           \
        few_##name##_##ROWS##_##what(const uint8_t *w, const void *x, const float *bias, float *y, uint32_t inner,    \
                                     uint32_t outer, uint32_t rows, uint32_t phase) {                                 \
        let_next_start();                                                                                             \
        few_quantised::products<packed::F, ROWS, WHAT>(w, (const uint8_t *)x, bias, y, {inner, outer, rows, phase},   \
                                                       wait_for_last);                                                \
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
    FEWEST(name, F, plain, PLAIN)                                                                                     \
    FEWEST(name, F, added, ADDED)                                                                                     \
    FEWEST(name, F, gated, GATED)                                                                                     \
    ROUND(name, F, 8)                                                                                                 \
    SIZE(name, F, 16)                                                                                                 \
    SIZE(name, F, 32)                                                                                                 \
    SIZE(name, F, 64)
EACH(q8_0, Q8_0)
EACH(q4_0, Q4_0)
EACH(q4_k, Q4_K)
