// What products of up to eight rows in 16 bits share out, and where their sums go.
#pragma once
#include "element.cuh"
#include "what.cuh"

namespace few {

constexpr int ROWS = 8, SUMS = 128; // rows, and numbers of a tile of outputs for all of them

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

} // namespace few
