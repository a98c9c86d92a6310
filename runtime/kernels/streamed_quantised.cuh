// x · Wᵀ of up to eight rows with quantised weights, in integers on tensor cores, whose weights come in a ring (ring.cuh): bound
// by reading them, each once. One block a multiprocessor has its share of the outputs, in tiles of eight, and all rows of x in 8 bits in shared memory, as much
// of each as there is room for. A stage is up to 16 chunks of a tile, of which each of eight warps has every eighth; their sums
// are added in shared memory.
#pragma once
#include "few_quantised.cuh"
#include "normed.cuh"
#include "ring.cuh"

namespace streamed_quantised {

using few_quantised::Outputs;
using few_quantised::Share;
using few_quantised::Sizes;
using ring::Ring;
using ring::CONSUMERS;
using ring::WARPS;

constexpr int ROWS = 8, SUMS = ROWS * 8;
constexpr uint32_t CHUNKS = 16; // of a stage
template <typename F> using Rows = rounded::Rows<F, ROWS>;
// Bytes of a stage.
template <typename F> constexpr uint32_t STAGE = CHUNKS * packed::BYTES<F>;
using ring::Room;

// Chunks of a row, and of a part of it.
template <typename F> struct Parts {
    uint32_t all, each;

    __device__ __forceinline__ explicit Parts(const Sizes &of)
        : all((of.inner + F::WIDTH - 1) / F::WIDTH), each(of.phase / F::WIDTH) {}
};

// Sends all weights of a product in the order in which they are used: part by part of x, in each tile by tile.
template <typename F, int WHAT> __device__ __forceinline__ void send(const uint8_t *w, const Sizes &of, Ring &ring) {
    const Share<WHAT> share(of.outer);
    const Parts<F> chunks(of);
    for (uint32_t part = 0; part < chunks.all; part += chunks.each) {
        const uint32_t end = min(part + chunks.each, chunks.all);
        for (uint32_t tile = 0; tile < share.tiles; tile++) {
            for (uint32_t chunk = part; chunk < end; chunk += CHUNKS) {
                const uint8_t *from = w + ((size_t)share.tile(tile) * chunks.all + chunk) * packed::BYTES<F>;
                const uint32_t bytes = min(CHUNKS, end - chunk) * packed::BYTES<F>;
                uint8_t *to = ring.room();
#pragma unroll 4
                for (uint32_t i = ring::producer() * 16; i < bytes; i += ring::PRODUCERS * 16) ::send(to + i, from + i, true);
                ring.sent();
            }
        }
    }
}

// Rows of x, in 8 bits part by part, or in f32 where they are few enough for each block to round all of them.
struct Given {
    const void *x;
    bool rounded;

    template <typename F>
    __device__ __forceinline__ void fetch(const Rows<F> &to, float *, const Sizes &of, uint32_t begin) const {
        if (rounded) {
            const uint8_t *from = (const uint8_t *)x + (size_t)(begin / of.phase) * to.bytes();
            for (uint32_t i = threadIdx.x * 16; i < to.bytes(); i += CONSUMERS * 16) ::send(to.at + i, from + i, true);
            ::sent(), arrived<0>();
        } else {
            const float *numbers = (const float *)x;
            auto load = [&](uint32_t row, uint32_t k) { return four(numbers + (size_t)row * of.inner + k); };
            // What stands in other rows is in no sum of these.
            rounded::round(to, load, of.inner, begin, of.rows, of.rows, threadIdx.x, CONSUMERS);
        }
        ring::consumers_together();
    }
};

// Rows of x in f32 that are normed on the way.
struct Normed {
    normed::Rows rows;

    template <typename F>
    __device__ __forceinline__ void fetch(const Rows<F> &to, float *room, const Sizes &of, uint32_t begin) const {
        rows.measure(room, of.rows, of.inner);
        auto load = [&](uint32_t row, uint32_t k) {
            return rows.numbers(row, of.inner, k, normed::Rows::scale(room, row));
        };
        rounded::round(to, load, of.inner, begin, of.rows, of.rows, threadIdx.x, CONSUMERS);
        ring::consumers_together();
    }
};

// The products of rows, as few_quantised::products has them, of weights that are sent. What others write of x and y is there.
template <typename F, int WHAT, typename Source>
__device__ __forceinline__ void products(const Source &x, const float *bias, float *y, const Sizes of, const Room &room, Ring &ring) {
    const Share<WHAT> share(of.outer);
    if (share.tiles == 0) return;
    const uint32_t warp = threadIdx.x / 32;
    const Parts<F> chunks(of);
    const Rows<F> rows(room.rows, of.phase);
    const Outputs<ROWS, WHAT> outputs{bias, y};
    float gate = 0.f;
    uint32_t parity = 0;
    for (uint32_t part = 0; part < chunks.all; part += chunks.each) {
        // Nobody is at the last part any more, nor at its sums.
        if (part > 0) ring::consumers_together();
        x.fetch(rows, room.sums, of, part * F::WIDTH);
        const uint32_t count = min(chunks.each, chunks.all - part);
        for (uint32_t tile = 0; tile < share.tiles; tile++) {
            float out[1][4] = {};
            for (uint32_t first = 0; first < count; first += CHUNKS) {
                const uint8_t *stage = ring.stage();
                const uint32_t here = min(CHUNKS, count - first);
                for (uint32_t n = warp; n < here; n += WARPS) {
                    packed::Chunk<F> weights;
                    weights.take(stage + n * packed::BYTES<F>);
                    packed::times(out, weights, rows, first + n);
                }
                ring.used();
            }
            float *sums = room.sums + parity * WARPS * SUMS;
            parity ^= 1;
            few_quantised::put<1, true>(sums + warp * SUMS, out);
            ring::consumers_together();
            if (threadIdx.x >= SUMS) continue;
            float sum = part > 0 ? room.kept[tile * SUMS + threadIdx.x] : 0.f;
#pragma unroll
            for (int v = 0; v < WARPS; v++) sum += sums[v * SUMS + threadIdx.x];
            if (part + chunks.each < chunks.all) {
                room.kept[tile * SUMS + threadIdx.x] = sum;
            } else {
                outputs.write(share, of, tile, sum, gate);
            }
        }
    }
}

} // namespace streamed_quantised
