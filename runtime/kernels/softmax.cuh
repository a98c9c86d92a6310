// Softmax over keys that come in tiles of 32, with sums that are corrected when a larger score comes (Milakov &
// Gimelshein 2018, Dao et al. 2022). A warp has QUERIES queries; a thread has one key of a tile, then some columns of the
// values. All in f32.
#pragma once
#include "element.cuh"

constexpr int MOST = 8;    // queries of a warp
constexpr int KEYS = 32;   // of a tile
constexpr int COLUMNS = 4; // of a thread: heads have up to 128 numbers

// Numbers from one row in shared memory to the next: whole float4, and 8 threads that read rows side by side use all
// banks.
__device__ __forceinline__ uint32_t row_stride(uint32_t head_dim) { return (head_dim + 3) / 4 * 4 + 4; }

// Copies rows to shared memory; those from `count` on, and numbers behind a row's last, become zero. `row(i)` points
// to row i. Called by `threads` threads together.
template <typename Rows>
__device__ __forceinline__ void load(float *tile, Rows row, uint32_t count, uint32_t head_dim, uint32_t thread,
                                     uint32_t threads) {
    uint32_t stride = row_stride(head_dim), quads = stride / 4 - 1;
    for (uint32_t i = thread; i < KEYS * quads; i += threads) {
        uint32_t at = i / quads, column = i % quads * 4;
        float4 numbers = make_float4(0.f, 0.f, 0.f, 0.f);
        if (at < count) {
            auto from = row(at) + column;
            if (head_dim % 4 == 0) {
                numbers = four(from);
            } else {
                numbers.x = widen(from[0]);
                if (column + 1 < head_dim) numbers.y = widen(from[1]);
                if (column + 2 < head_dim) numbers.z = widen(from[2]);
                if (column + 3 < head_dim) numbers.w = widen(from[3]);
            }
        }
        *reinterpret_cast<float4 *>(tile + at * stride + column) = numbers;
    }
}

template <int QUERIES> struct Running {
    float highest[QUERIES], sum[QUERIES], out[QUERIES][COLUMNS];

    __device__ __forceinline__ void begin() {
#pragma unroll
        for (int q = 0; q < QUERIES; q++) {
            highest[q] = -INFINITY;
            sum[q] = 0.f;
#pragma unroll
            for (int c = 0; c < COLUMNS; c++) out[q][c] = 0.f;
        }
    }

    // Takes the scores of a tile of keys; they become weights. `visible[q]` keys of the tile count for query q.
    __device__ __forceinline__ void score(const float *queries, const float *keys, uint32_t head_dim,
                                          const int (&visible)[QUERIES], float (&weights)[QUERIES]) {
        uint32_t stride = row_stride(head_dim);
        int lane = threadIdx.x % 32;
#pragma unroll
        for (int q = 0; q < QUERIES; q++) weights[q] = 0.f;
        for (uint32_t i = 0; i < stride - 4; i += 4) {
            float4 key = four(keys + lane * stride + i);
#pragma unroll
            for (int q = 0; q < QUERIES; q++) {
                float4 query = four(queries + q * stride + i);
                weights[q] += query.x * key.x + query.y * key.y + query.z * key.z + query.w * key.w;
            }
        }
#pragma unroll
        for (int q = 0; q < QUERIES; q++) {
            bool seen = lane < visible[q];
            float largest = fmaxf(highest[q], warp_max(seen ? weights[q] : -INFINITY));
            // Nothing was visible so far, in no tile.
            if (largest == -INFINITY && !__any_sync(~0u, seen)) {
                weights[q] = 0.f;
                continue;
            }
            float correction = expf(highest[q] - largest);
            weights[q] = seen ? expf(weights[q] - largest) : 0.f;
            sum[q] = sum[q] * correction + warp_sum(weights[q]);
            highest[q] = largest;
#pragma unroll
            for (int c = 0; c < COLUMNS; c++) out[q][c] *= correction;
        }
    }

    // Adds the values of the tile's first `count` keys.
    __device__ __forceinline__ void add(const float *values, uint32_t head_dim, int count,
                                        const float (&weights)[QUERIES]) {
        uint32_t stride = row_stride(head_dim);
        int lane = threadIdx.x % 32;
        for (int k = 0; k < count; k++) {
            float value[COLUMNS];
#pragma unroll
            for (int c = 0; c < COLUMNS; c++) value[c] = lane + 32 * c < head_dim ? values[k * stride + lane + 32 * c] : 0.f;
#pragma unroll
            for (int q = 0; q < QUERIES; q++) {
                float weight = __shfl_sync(~0u, weights[q], k);
#pragma unroll
                for (int c = 0; c < COLUMNS; c++) out[q][c] += weight * value[c];
            }
        }
    }
};
