// x · Wᵀ of up to eight rows in 16 bits, on tensor cores: bound by reading the weights, each once. One block a multiprocessor has
// its share of the outputs, in tiles of 16, and all rows of x in shared memory, as much of each as there is room for. The 16 warps
// of a block have every 16th chunk of 64 numbers each; their sums are added in shared memory. A thread has four chunks of its
// two rows of weights in registers and fetches the next as soon as one is used, also from the tile behind: the first of
// them, and some more into the cache, before the kernel before has ended.
#pragma once
#include "instructions.cuh"
#include "element.cuh"
#include "product.cuh"
#include "what.cuh"

namespace few {

constexpr int WARPS = 16, THREADS = WARPS * 32;
constexpr int CHUNK = 64;          // numbers of a row of weights that a warp takes at once: whole cache lines
constexpr int FLIGHT = 4;          // chunks of a warp that are on their way
constexpr int AHEAD = 4;           // more of them that are fetched into the cache before the block may begin
constexpr int STEP = WARPS * CHUNK; // numbers that a block takes at once
constexpr int ROWS = 8, SUMS = 128;  // rows, and numbers of a tile of outputs for all of them
constexpr int PAD = 32;            // numbers between rows of x, so that eight threads reading two of them use all banks

struct Sizes {
    uint32_t inner, outer, rows;
    uint32_t phase; // numbers of a row of x that are in shared memory at a time
};

// The outputs of a block: from `begin` to `end`, in tiles. A tile of gated outputs has eight gates and their partners.
template <int WHAT> struct Share {
    static constexpr int TILE = WHAT == GATED ? 8 : 16;
    uint32_t begin, end, tiles;

    __device__ explicit Share(uint32_t outer) {
        begin = outer * blockIdx.x / gridDim.x, end = outer * (blockIdx.x + 1) / gridDim.x;
        tiles = (end - begin + TILE - 1) / TILE;
    }
    // The row of weights of a tile's row, of which there are 16; none behind the end.
    __device__ __forceinline__ bool row(uint32_t tile, uint32_t n, uint32_t outer, uint32_t &at) const {
        uint32_t j = begin + tile * TILE + (WHAT == GATED ? n % 8 : n);
        at = WHAT == GATED && n >= 8 ? outer + j : j;
        return j < end;
    }
};

// Where a thread's next weights are: phase by phase, in each tile by tile, in each chunk by chunk.
template <typename T, int WHAT> struct Walk {
    const T *weights, *low, *high;
    bool has_low, has_high;
    uint32_t phase = 0, tile = 0, chunk = 0, first;

    __device__ __forceinline__ void place(const Share<WHAT> &share, const Sizes &of) {
        uint32_t n = threadIdx.x % 32 / 4, at;
        has_low = share.row(tile, n, of.outer, at), low = weights + (size_t)at * of.inner;
        has_high = share.row(tile, n + 8, of.outer, at), high = weights + (size_t)at * of.inner;
    }
    __device__ __forceinline__ void load(uint4 (&to)[2][2], const Share<WHAT> &share, const Sizes &of, uint32_t chunks) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            uint32_t k = phase * of.phase + chunk * STEP + first + i * 32;
            bool in = k < of.inner && k < (phase + 1) * of.phase;
            to[0][i] = in && has_low ? stream(low + k) : make_uint4(0, 0, 0, 0);
            to[1][i] = in && has_high ? stream(high + k) : make_uint4(0, 0, 0, 0);
        }
        if (++chunk < chunks) return;
        chunk = 0;
        if (++tile == share.tiles) tile = 0, phase++;
        place(share, of);
    }
    // The first chunks, and what comes behind them into the cache.
    __device__ __forceinline__ void begin(uint4 (&to)[FLIGHT][2][2], const Share<WHAT> &share, const Sizes &of,
                                          uint32_t chunks) {
        place(share, of);
#pragma unroll
        for (int f = 0; f < FLIGHT; f++) load(to[f], share, of, chunks);
        ahead(share, of, chunks);
    }
    // Brings what comes behind the first chunks into the cache: a thread has a line of every second of them.
    __device__ __forceinline__ void ahead(const Share<WHAT> &share, const Sizes &of, uint32_t chunks) const {
        uint32_t lane = threadIdx.x % 32, row;
#pragma unroll
        for (int n = 0; n < AHEAD; n += 2) {
            uint32_t which = FLIGHT + n + lane / 16, k = which % chunks * STEP + threadIdx.x / 32 * CHUNK;
            uint32_t tile = which / chunks;
            if (tile < share.tiles && k < min(of.inner, of.phase) && share.row(tile, lane % 16, of.outer, row)) {
                prefetch(weights + (size_t)row * of.inner + k);
            }
        }
    }
};

// Numbers of rows of x from `begin` on to shared memory, zeros behind their end.
template <typename T>
__device__ __forceinline__ void fetch(const T *x, T *to, const Sizes &of, uint32_t begin, uint32_t stride) {
    for (uint32_t r = 0; r < of.rows; r++) {
        for (uint32_t i = threadIdx.x * 8; i < stride - PAD; i += THREADS * 8) {
            bool is = begin + i < of.inner && i < of.phase;
            send(to + r * stride + i, x + (size_t)r * of.inner + (is ? begin + i : 0), is);
        }
    }
    sent(), arrived<0>();
    __syncthreads();
}

// The sums of a warp to where they are added, and begun anew.
__device__ __forceinline__ void put(float *to, float (&sums)[4]) {
    *reinterpret_cast<float4 *>(to) = make_float4(sums[0], sums[1], sums[2], sums[3]);
    sums[0] = sums[1] = sums[2] = sums[3] = 0.f;
}

// Where the sums of a tile go.
template <typename T, int WHAT> struct Outputs {
    const float *bias;
    void *to;

    // Each thread has the sum of its number of the tile.
    __device__ __forceinline__ void write(const Share<WHAT> &share, const Sizes &of, uint32_t tile, float sum) const {
        uint32_t lane = threadIdx.x / 4, part = threadIdx.x % 4, row = lane % 4 * 2 + part % 2;
        uint32_t j = share.begin + tile * Share<WHAT>::TILE + lane / 4 + (WHAT == GATED ? 0 : part / 2 * 8);
        // The partner of a gate is two threads on.
        float partner = WHAT == GATED ? __shfl_down_sync(~0u, sum, 2) : 0.f;
        if (j >= share.end || row >= of.rows) return;
        if (WHAT == GATED) {
            if (part < 2) reinterpret_cast<T *>(to)[(size_t)row * of.outer + j] = narrow<T>(sum / (1.f + expf(-sum)) * partner);
            return;
        }
        float *out = reinterpret_cast<float *>(to) + (size_t)row * of.outer + j;
        if (bias) sum += bias[j];
        *out = WHAT == ADDED ? __ldcg(out) + sum : sum;
    }
};

// w [outer, inner] (twice outer where gated: gates, then partners), x [rows, inner], y [rows, outer]: in f32 products, or
// products that are added to it; in T the SiLU of gates times their partners. Calls `wait`, once by each thread, before it
// reads or writes what others do.
template <int WHAT, typename T, typename Wait>
__device__ __forceinline__ void products(const T *w, const T *x, const float *bias, void *y, const Sizes of, const Wait &wait) {
    extern __shared__ uint4 shared[];
    const Share<WHAT> share(of.outer);
    const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32, chunks = (of.phase + STEP - 1) / STEP;
    const uint32_t stride = chunks * STEP + PAD, phases = (of.inner + of.phase - 1) / of.phase;
    T *rows = reinterpret_cast<T *>(shared);
    float *sums = reinterpret_cast<float *>(rows + ROWS * stride), *kept = sums + 2 * WARPS * SUMS;
    Walk<T, WHAT> walk{w};
    walk.first = warp * CHUNK + lane % 4 * 8;
    uint4 weights[FLIGHT][2][2];
    // Without tiles as well: what is not written on every way would take up its registers before this.
    walk.begin(weights, share, of, chunks);
    wait();
    if (share.tiles == 0) return;
    const Outputs<T, WHAT> outputs{bias, y};
    float out[4] = {};
    uint32_t chunk = 0, tile = 0, phase = 0, total = chunks * share.tiles * phases, parity = 0;
    fetch(x, rows, of, 0, stride);
    // All warps are at the same step: a tile ends for all of them.
    for (uint32_t step = 0; step < total; step += FLIGHT) {
#pragma unroll
        for (int f = 0; f < FLIGHT; f++) {
            if (step + f >= total) break;
#pragma unroll
            for (int i = 0; i < 2; i++) {
                uint4 low = weights[f][0][i], high = weights[f][1][i];
                const T *from = rows + lane / 4 * stride + chunk * STEP + walk.first + i * 32;
                uint4 row = lane / 4 < of.rows ? *reinterpret_cast<const uint4 *>(from) : make_uint4(0, 0, 0, 0);
                product(out, {low.x, high.x, low.y, high.y}, row.x, row.y, T());
                product(out, {low.z, high.z, low.w, high.w}, row.z, row.w, T());
            }
            walk.load(weights[f], share, of, chunks);
            if (++chunk < chunks) continue;
            chunk = 0;
            float *own = sums + parity * WARPS * SUMS;
            parity ^= 1;
            put(own + warp * SUMS + lane * 4, out);
            __syncthreads();
            if (threadIdx.x < SUMS) {
                float sum = phase > 0 ? kept[tile * SUMS + threadIdx.x] : 0.f;
#pragma unroll
                for (int v = 0; v < WARPS; v++) sum += own[v * SUMS + threadIdx.x];
                if (phase + 1 < phases) {
                    kept[tile * SUMS + threadIdx.x] = sum;
                } else {
                    outputs.write(share, of, tile, sum);
                }
            }
            if (++tile < share.tiles) continue;
            tile = 0;
            if (++phase == phases) continue;
            __syncthreads();
            fetch(x, rows, of, phase * of.phase, stride);
        }
    }
}

} // namespace few

