// Rows that are divided by their root mean square before they are multiplied.
#pragma once
#include "element.cuh"
#include "ring.cuh"

namespace normed {

constexpr int ROWS = 8;
using ring::WARPS;
// Numbers of shared memory that are needed for that.
constexpr int ROOM = WARPS + ROWS;

// Rows in f32, each number to be multiplied by a weight.
struct Rows {
    const float *x, *weight;
    float eps;

    // Where `room` keeps what row r is to be multiplied by.
    static __device__ __forceinline__ float &scale(float *room, uint32_t r) { return room[WARPS + r]; }

    // Finds that for up to eight rows of `inner` numbers, by the consumers of a ring: as many warps have a row as there are for each.
    __device__ __forceinline__ void measure(float *room, uint32_t rows, uint32_t inner) const {
        const uint32_t warps = rows > 1 ? WARPS >> (32 - __clz(rows - 1)) : WARPS, warp = threadIdx.x / 32;
        const float *own = x + (size_t)min(warp / warps, rows - 1) * inner;
        float sum = 0.f;
#pragma unroll 2
        for (uint32_t i = (threadIdx.x - warp / warps * warps * 32) * 4; i < inner; i += warps * 32 * 4) {
            float4 v = four(own + i);
            sum += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
        }
        sum = warp_sum(sum);
        if (threadIdx.x % 32 == 0) room[warp] = sum;
        ring::consumers_together();
        if (threadIdx.x < rows) {
            float all = 0.f;
            for (uint32_t w = 0; w < warps; w++) all += room[threadIdx.x * warps + w];
            scale(room, threadIdx.x) = 1.f / sqrtf(all / inner + eps);
        }
        ring::consumers_together();
    }
    // Four numbers of row r from `i` on, under that.
    __device__ __forceinline__ float4 numbers(uint32_t r, uint32_t inner, uint32_t i, float scale) const {
        float4 v = four(x + (size_t)r * inner + i), w = four(weight + i);
        return make_float4(v.x * scale * w.x, v.y * scale * w.y, v.z * scale * w.z, v.w * scale * w.w);
    }
};

} // namespace normed
