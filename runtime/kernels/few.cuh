// x · Wᵀ of up to eight rows in 16 bits, on tensor cores, whose weights come in a ring (ring.cuh). One block a multiprocessor has
// its share of the outputs, in tiles of 16, and all rows of x in shared memory, as much of each as there is room for. A stage is
// 512 numbers of the rows of a tile, of which each of eight warps has 64; their sums are added in shared memory.
#pragma once
#include "element.cuh"
#include "instructions.cuh"
#include "product.cuh"
#include "ring.cuh"
#include "what.cuh"

namespace few {

using ring::CONSUMERS;
using ring::Ring;
using ring::Room;
using ring::WARPS;

constexpr int COLUMNS = 512;           // numbers of a row of weights in a stage
constexpr int OF_WARP = COLUMNS / WARPS;
constexpr int PAD = 8;                 // numbers between rows, so that eight threads reading one each use all banks
constexpr int STRIDE = COLUMNS + PAD;  // from one row of a stage to the next
constexpr int OUTPUTS = 16, ROWS = 8;   // of a tile, and of the rows that are multiplied with it
constexpr int SUMS = OUTPUTS * ROWS;

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

// Bytes of a stage.
template <typename T> constexpr uint32_t STAGE = OUTPUTS * STRIDE * sizeof(T);

// Sends all weights of a product in the order in which they are used: part by part of x, in each tile by tile.
template <int WHAT, typename T> __device__ __forceinline__ void send(const T *w, const Sizes &of, Ring &ring) {
    const Share<WHAT> share(of.outer);
    // A producer has eight numbers of every second row.
    constexpr uint32_t PIECES = COLUMNS / 8, APART = ring::PRODUCERS / PIECES;
    const uint32_t first = ring::producer() / PIECES, n = ring::producer() % PIECES * 8;
    for (uint32_t part = 0; part < of.inner; part += of.phase) {
        for (uint32_t tile = 0; tile < share.tiles; tile++) {
            for (uint32_t k = part + n; k - n < min(part + of.phase, of.inner); k += COLUMNS) {
                T *to = reinterpret_cast<T *>(ring.room()) + n;
                const bool is = k < of.inner;
#pragma unroll
                for (uint32_t row = 0; row < OUTPUTS; row += APART) {
                    uint32_t at;
                    if (!share.row(tile, first + row, of.outer, at)) continue;
                    ::send(to + (first + row) * STRIDE, w + (size_t)at * of.inner + (is ? k : 0), is);
                }
                ring.sent();
            }
        }
    }
}

// Numbers of rows of x from `begin` on to shared memory, zeros behind their end.
template <typename T>
__device__ __forceinline__ void fetch(const T *x, T *to, const Sizes &of, uint32_t begin, uint32_t stride) {
    for (uint32_t r = 0; r < of.rows; r++) {
        for (uint32_t i = threadIdx.x * 8; i < stride - PAD; i += CONSUMERS * 8) {
            bool is = begin + i < of.inner && i < of.phase;
            ::send(to + r * stride + i, x + (size_t)r * of.inner + (is ? begin + i : 0), is);
        }
    }
    ::sent(), arrived<0>();
    ring::consumers_together();
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

// A warp's part of a stage times that of rows, of which `x` is the row that this thread points to.
template <typename T> __device__ __forceinline__ void multiply(float (&sums)[4], const uint8_t *stage, const T *x) {
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const T *row = reinterpret_cast<const T *>(stage) + lane % 16 * STRIDE + warp * OF_WARP + lane / 16 * 8;
#pragma unroll
    for (int i = 0; i < OF_WARP; i += 32) {
        uint32_t a[4], b[4];
        matrices(b, x + i);
        matrices(a, row + i);
        product(sums, a, b[0], b[1], T());
        matrices(a, row + i + 16);
        product(sums, a, b[2], b[3], T());
    }
}

// The products of rows of weights that are sent (few_rows.cu). What others write of x and y is there.
template <int WHAT, typename T>
__device__ __forceinline__ void products(const T *x, const float *bias, void *y, const Sizes of, const Room &room, Ring &ring) {
    const Share<WHAT> share(of.outer);
    if (share.tiles == 0) return;
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const uint32_t stride = (of.phase + COLUMNS - 1) / COLUMNS * COLUMNS + PAD;
    const Outputs<T, WHAT> outputs{bias, y};
    T *rows = reinterpret_cast<T *>(room.rows);
    const T *own = rows + min(lane % 8, of.rows - 1) * stride + warp * OF_WARP + lane / 8 * 8;
    uint32_t parity = 0;
    for (uint32_t part = 0; part < of.inner; part += of.phase) {
        // Nobody is at the last part any more, nor at its sums.
        if (part > 0) ring::consumers_together();
        fetch(x, rows, of, part, stride);
        const uint32_t columns = min(of.phase, of.inner - part);
        for (uint32_t tile = 0; tile < share.tiles; tile++) {
            float out[4] = {};
            for (uint32_t k = 0; k < columns; k += COLUMNS) {
                multiply(out, ring.stage(), own + k);
                ring.used();
            }
            float *sums = room.sums + parity * WARPS * SUMS;
            parity ^= 1;
            put(sums + warp * SUMS + lane * 4, out);
            ring::consumers_together();
            if (threadIdx.x >= SUMS) continue;
            float sum = part > 0 ? room.kept[tile * SUMS + threadIdx.x] : 0.f;
#pragma unroll
            for (int v = 0; v < WARPS; v++) sum += sums[v * SUMS + threadIdx.x];
            if (part + of.phase < of.inner) {
                room.kept[tile * SUMS + threadIdx.x] = sum;
            } else {
                outputs.write(share, of, tile, sum);
            }
        }
    }
}

} // namespace few
