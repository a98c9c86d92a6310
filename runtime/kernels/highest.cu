// The first of the highest numbers of a row. One block a row.
#include "element.cuh"

// What is said of a row with a number that is infinite or none, and of one without numbers.
constexpr uint32_t NONE = ~0u;

struct Best {
    float number;
    uint32_t at;

    __device__ __forceinline__ void take(Best other) {
        if (other.number > number || (other.number == number && other.at < at)) *this = other;
    }
};

__device__ __forceinline__ Best of_warp(Best best) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
        best.take({__shfl_xor_sync(~0u, best.number, distance), __shfl_xor_sync(~0u, best.at, distance)});
    }
    return best;
}

extern "C" __global__ void highest(const float *x, uint32_t *out, uint32_t width) {
    __shared__ Best of_warps[32];
    x += (size_t)blockIdx.x * width;
    Best best = {-INFINITY, NONE};
    bool broken = false;
    for (uint32_t i = threadIdx.x; i < width; i += blockDim.x) {
        float number = x[i];
        broken |= !isfinite(number);
        best.take({number, i});
    }
    broken = __syncthreads_or(broken);
    best = of_warp(best);
    uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    if (lane == 0) of_warps[warp] = best;
    __syncthreads();
    if (warp > 0) return;
    best = of_warp(lane < blockDim.x / 32 ? of_warps[lane] : Best{-INFINITY, NONE});
    if (lane == 0) out[blockIdx.x] = broken ? NONE : best.at;
}
