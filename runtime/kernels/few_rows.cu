// Products of few rows in 16 bits (few.cuh), each a kernel of its own that starts early: its weights are on their way while the
// kernel before still runs. Shared memory begins with barriers and sums; rows are at byte `rows_at` of it, and so many stages of the
// ring at byte `stages_at`.
#include "early.cuh"
#include "few.cuh"

// w [outer, inner] (twice outer where gated: gates, then partners), x [rows, inner], y [rows, outer]: in f32 products, or
// products that are added to it; in T the SiLU of gates times their partners.
#define FEW(name, T, what, WHAT)                                                                                      \
    extern "C" __global__ void __launch_bounds__(ring::THREADS, 1) few_rows_##name##_##what(                          \
        const T *w, const T *x, const float *bias, void *y, uint32_t inner, uint32_t outer, uint32_t rows,            \
        uint32_t phase, uint32_t rows_at, uint32_t stages_at, uint32_t stages) {                                      \
        extern __shared__ uint4 shared[];                                                                             \
        let_next_start();                                                                                             \
        uint8_t *memory = reinterpret_cast<uint8_t *>(shared);                                                        \
        float *sums = reinterpret_cast<float *>(memory + ring::BARRIERS);                                             \
        const few::Sizes of{inner, outer, rows, phase};                                                               \
        const ring::Room room{sums, sums + 2 * ring::WARPS * few::SUMS, memory + rows_at};                            \
        ring::Ring ring(memory, memory + stages_at, stages, few::STAGE<T>);                                           \
        ring.begin();                                                                                                 \
        if (threadIdx.x >= ring::CONSUMERS) {                                                                         \
            few::send<WHAT>(w, of, ring);                                                                             \
            return ring::all_sent();                                                                                  \
        }                                                                                                             \
        wait_for_last();                                                                                              \
        few::products<WHAT>(x, bias, y, of, room, ring);                                                              \
    }
#define EACH(name, T)                                                                                                 \
    FEW(name, T, plain, PLAIN)                                                                                        \
    FEW(name, T, added, ADDED)                                                                                        \
    FEW(name, T, gated, GATED)
EACH(f16, __half)
EACH(bf16, __nv_bfloat16)
