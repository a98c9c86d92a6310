// Blocks that wait for each other.
#pragma once
#include "instructions.cuh"

// All blocks of a kernel that are there at the same time (a cooperative launch). `arrived` counts those that have come, over
// all kernels; every kernel leaves a multiple of its blocks.
struct Grid {
    uint64_t *arrived, target;

    __device__ __forceinline__ explicit Grid(uint64_t *arrived) : arrived(arrived) {
        // This block has not come yet, so that no more than the others are ahead.
        if (threadIdx.x == 0) target = acquired(arrived) / gridDim.x * gridDim.x;
    }
    // Until all have come. What they wrote before can be read then.
    __device__ __noinline__ void together() {
        __syncthreads();
        if (threadIdx.x == 0) {
            target += gridDim.x;
            __threadfence();
            atomicAdd(reinterpret_cast<unsigned long long *>(arrived), 1ull);
            while (acquired(arrived) < target) {}
            __threadfence();
        }
        __syncthreads();
    }
};
