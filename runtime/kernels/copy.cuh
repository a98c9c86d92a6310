// Ways from the GPU's memory that C++ has no words for.
#pragma once
#include <cstdint>

// 16 bytes of weights, which no other block reads.
__device__ __forceinline__ uint4 stream(const void *from) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.L2::256B.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(from));
    return v;
}

// Brings a line into the cache.
__device__ __forceinline__ void prefetch(const void *from) { asm volatile("prefetch.global.L2 [%0];" ::"l"(from)); }

// 16 bytes on their way to shared memory; zeros where `is` is false.
__device__ __forceinline__ void send(void *to, const void *from, bool is) {
    uint32_t at = (uint32_t)__cvta_generic_to_shared(to), bytes = is ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "r"(bytes) : "memory");
}
// Ends a batch of what this thread sends.
__device__ __forceinline__ void sent() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// All but the last `LEFT` batches have come.
template <int LEFT> __device__ __forceinline__ void arrived() { asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory"); }
