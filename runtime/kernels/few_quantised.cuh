// x · Wᵀ of 9 to 64 rows with quantised weights, in integers on tensor cores: bound by reading the weights, each once. One
// block a multiprocessor has its share of the outputs, in tiles of eight, and all rows of x in 8 bits in shared memory, as
// much of each as there is room for. The 16 warps of a block have every 16th chunk of a tile each; their sums are added in
// shared memory. A thread has FLIGHT chunks in registers and fetches the next as soon as one is used, also from the
// tile behind: the first of them, and some more into the cache, before the kernel before has ended.
#pragma once
#include "instructions.cuh"
#include "packed.cuh"
#include "what.cuh"

namespace few_quantised {

using packed::Chunk;
using rounded::Rows;

constexpr int WARPS = 16, THREADS = WARPS * 32;
constexpr int FLIGHT = 4; // chunks of a warp that are on their way
constexpr int AHEAD = 2;  // more of them that are fetched into the cache before the block may begin

struct Sizes {
    uint32_t inner, outer, rows;
    uint32_t phase; // numbers of a row of x that are in shared memory at a time: whole chunks
};

// The tiles of a block. Gates and their partners take turns.
template <int WHAT> struct Share {
    uint32_t begin, tiles, partner;

    __device__ explicit Share(uint32_t outer) {
        uint32_t all = (outer + 7) / 8;
        begin = all * blockIdx.x / gridDim.x;
        tiles = all * (blockIdx.x + 1) / gridDim.x - begin;
        partner = all;
        if (WHAT == GATED) tiles *= 2;
    }
    __device__ __forceinline__ uint32_t tile(uint32_t n) const {
        return WHAT == GATED ? begin + n / 2 + n % 2 * partner : begin + n;
    }
};

// Where a thread's next chunk is: phase by phase, in each tile by tile, in each one of every 16.
template <typename F, int WHAT> struct Walk {
    const uint8_t *weights;
    uint32_t all, in_phase, steps; // chunks of a row and of a phase of it, and those of the latter for a warp
    uint32_t phase = 0, tile = 0, step = 0;

    __device__ __forceinline__ Walk(const uint8_t *weights, const Sizes &of) : weights(weights) {
        all = (of.inner + F::WIDTH - 1) / F::WIDTH, in_phase = of.phase / F::WIDTH;
        steps = (in_phase + WARPS - 1) / WARPS;
    }
    __device__ __forceinline__ bool place(const Share<WHAT> &share, uint32_t tile, uint32_t step, const uint8_t *&at) const {
        uint32_t n = step * WARPS + threadIdx.x / 32, chunk = phase * in_phase + n;
        at = weights + ((size_t)share.tile(tile) * all + chunk) * packed::BYTES<F>;
        return n < in_phase && chunk < all && tile < share.tiles;
    }
    __device__ __forceinline__ void load(Chunk<F> &to, const Share<WHAT> &share) {
        const uint8_t *at;
        if (place(share, tile, step, at)) to.load(at);
        if (++step < steps) return;
        step = 0;
        if (++tile == share.tiles) tile = 0, phase++;
    }
    // The first chunks, and what comes behind them into the cache: a line for each thread.
    __device__ __forceinline__ void begin(Chunk<F> (&to)[FLIGHT], const Share<WHAT> &share) {
#pragma unroll
        for (int f = 0; f < FLIGHT; f++) load(to[f], share);
        const uint8_t *at;
        uint32_t which = FLIGHT, line = threadIdx.x % 32 * 128;
#pragma unroll
        for (int n = 0; n < AHEAD; n++, which++) {
            if (place(share, which / steps, which % steps, at) && line < packed::BYTES<F>) prefetch(at + line);
        }
    }
};

// Rows of x in 8 bits, phase by phase, to shared memory.
template <typename F, int ROWS>
__device__ __forceinline__ void fetch(const uint8_t *x, const Rows<F, ROWS> &to, uint32_t phase) {
    const uint8_t *from = x + (size_t)phase * to.bytes();
    for (uint32_t i = threadIdx.x * 16; i < to.bytes(); i += THREADS * 16) send(to.at + i, from + i, true);
    sent(), arrived<0>();
    __syncthreads();
}

// Where the sums of tiles go. Each thread has one number of the tile, or none.
template <int ROWS, int WHAT> struct Outputs {
    static constexpr bool HALF = ROWS == 8;
    static constexpr int SUMS = ROWS * 8;
    const float *bias;
    float *to;

    __device__ __forceinline__ void write(const Share<WHAT> &share, const Sizes &of, uint32_t tile, float sum,
                                          float &gate) const {
        if (WHAT == GATED && tile % 2 == 0) {
            gate = sum;
            return;
        }
        uint32_t of_thread = HALF ? 2 : 4, lane = threadIdx.x / of_thread % 32, n = threadIdx.x % of_thread;
        uint32_t row = threadIdx.x / 128 * (HALF ? 0 : 16) + lane / 4 + n / 2 * 8;
        uint32_t j = (share.begin + (WHAT == GATED ? tile / 2 : tile)) * 8 + lane % 4 * 2 + n % 2;
        if (j >= of.outer || row >= of.rows) return;
        float *out = to + (size_t)row * of.outer + j;
        if (bias) sum += bias[j];
        if (WHAT == GATED) sum *= gate / (1.f + expf(-gate));
        *out = WHAT == ADDED ? __ldcg(out) + sum : sum;
    }
};

// The sums of a warp to where they are added, and begun anew.
template <int TILES, bool HALF> __device__ __forceinline__ void put(float *to, float (&sums)[TILES][4]) {
    const uint32_t lane = threadIdx.x % 32;
#pragma unroll
    for (int m = 0; m < TILES; m++) {
        if (HALF) {
            reinterpret_cast<float2 *>(to)[lane] = make_float2(sums[m][0], sums[m][1]);
        } else {
            float4 some = make_float4(sums[m][0], sums[m][1], sums[m][2], sums[m][3]);
            reinterpret_cast<float4 *>(to)[m * 32 + lane] = some;
        }
        sums[m][0] = sums[m][1] = sums[m][2] = sums[m][3] = 0.f;
    }
}

// w: outputs (twice as many where gated: gates, then partners) of `inner` numbers; y [rows, outer] in f32: products, or products
// that are added to it, or the SiLU of gates times their partners. Calls `wait`, once by each thread, before it reads or
// writes what others do.
template <typename F, int ROWS, int WHAT, typename Wait>
__device__ __forceinline__ void products(const uint8_t *w, const uint8_t *x, const float *bias, float *y, const Sizes of,
                                         const Wait &wait) {
    extern __shared__ uint4 shared[];
    using Of = Rows<F, ROWS>;
    constexpr int SUMS = ROWS * 8;
    const Share<WHAT> share(of.outer);
    const uint32_t warp = threadIdx.x / 32, phases = (of.inner + of.phase - 1) / of.phase;
    const Of rows(shared, of.phase);
    float *sums = reinterpret_cast<float *>(rows.at + rows.bytes()), *kept = sums + 2 * WARPS * SUMS;
    Walk<F, WHAT> walk(w, of);
    Chunk<F> weights[FLIGHT];
    // What is not written on every way would take up its registers before this.
#pragma unroll
    for (int f = 0; f < FLIGHT; f++) weights[f].clear();
    walk.begin(weights, share);
    wait();
    if (share.tiles == 0) return;
    const Outputs<ROWS, WHAT> outputs{bias, y};
    float out[Of::TILES][4] = {}, gate = 0.f;
    uint32_t step = 0, tile = 0, phase = 0, total = walk.steps * share.tiles * phases, parity = 0;
    fetch(x, rows, 0);
    // All warps are at the same step: a tile ends for all of them.
    for (uint32_t at = 0; at < total; at += FLIGHT) {
#pragma unroll
        for (int f = 0; f < FLIGHT; f++) {
            if (at + f >= total) break;
            const uint32_t chunk = step * WARPS + warp;
            if (chunk < walk.in_phase && phase * walk.in_phase + chunk < walk.all) packed::times(out, weights[f], rows, chunk);
            walk.load(weights[f], share);
            if (++step < walk.steps) continue;
            step = 0;
            float *own = sums + parity * WARPS * SUMS;
            parity ^= 1;
            put<Of::TILES, Of::HALF>(own + warp * SUMS, out);
            __syncthreads();
            if (threadIdx.x < SUMS) {
                float sum = phase > 0 ? kept[tile * SUMS + threadIdx.x] : 0.f;
#pragma unroll
                for (int v = 0; v < WARPS; v++) sum += own[v * SUMS + threadIdx.x];
                if (phase + 1 < phases) {
                    kept[tile * SUMS + threadIdx.x] = sum;
                } else {
                    outputs.write(share, of, tile, sum, gate);
                }
            }
            if (++tile < share.tiles) continue;
            tile = 0;
            if (++phase == phases) continue;
            __syncthreads();
            fetch(x, rows, phase);
        }
    }
}

} // namespace few_quantised

