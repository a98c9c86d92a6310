// Blocks that wait for each other.
#pragma once
#include "instructions.cuh"

// All blocks of a kernel that are there at the same time (a cooperative launch), of each the first THREADS threads. `come` counts
// those that have come; it is zero before the kernel and behind it.
template <int THREADS> struct Grid {
    uint32_t *come, wanted = 0;

    // Until all have come. What they wrote before can be read then.
    __device__ __forceinline__ void together() {
        wanted += gridDim.x;
        first_together<THREADS>();
        if (threadIdx.x == 0) {
            released(come);
            while (acquired(come) < wanted) {}
        }
        first_together<THREADS>();
    }
    // Comes no more. Nobody waits for the last.
    __device__ __forceinline__ void leave() {
        if (threadIdx.x == 0 && atomicAdd(come, 1) + 1 == wanted + gridDim.x) *come = 0;
    }
};
