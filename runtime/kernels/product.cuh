// Numbers as the products of tensor cores take and give them.
#pragma once
#include "instructions.cuh"

// Two numbers in 16 bits.
__device__ __forceinline__ uint32_t two(float low, float high, __half) {
    __half2 pair = __floats2half2_rn(low, high);
    return reinterpret_cast<uint32_t &>(pair);
}
__device__ __forceinline__ uint32_t two(float low, float high, __nv_bfloat16) {
    __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return reinterpret_cast<uint32_t &>(pair);
}

// Two numbers side by side, at a multiple of their size.
__device__ __forceinline__ void put_two(float *to, float low, float high) {
    *reinterpret_cast<float2 *>(to) = make_float2(low, high);
}
template <typename T> __device__ __forceinline__ void put_two(T *to, float low, float high) {
    *reinterpret_cast<uint32_t *>(to) = two(low, high, T());
}
