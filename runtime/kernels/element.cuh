// Numbers as weights and caches hold them, in 32 or 16 bits. Arithmetic is never done in 16 bits.
#pragma once
#include <cstdint>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <type_traits>

__device__ __forceinline__ float widen(float value) { return value; }
__device__ __forceinline__ float widen(__half value) { return __half2float(value); }
__device__ __forceinline__ float widen(__nv_bfloat16 value) { return __bfloat162float(value); }

template <typename T> __device__ __forceinline__ T narrow(float value);
template <> __device__ __forceinline__ float narrow<float>(float value) { return value; }
template <> __device__ __forceinline__ __half narrow<__half>(float value) { return __float2half_rn(value); }
template <> __device__ __forceinline__ __nv_bfloat16 narrow<__nv_bfloat16>(float value) {
    return __float2bfloat16_rn(value);
}

// Four numbers side by side, at a multiple of their size.
__device__ __forceinline__ float4 four(const float *from) { return *reinterpret_cast<const float4 *>(from); }
template <typename T> __device__ __forceinline__ float4 four(const T *from) {
    uint2 loaded = *reinterpret_cast<const uint2 *>(from);
    const T *part = reinterpret_cast<const T *>(&loaded);
    return make_float4(widen(part[0]), widen(part[1]), widen(part[2]), widen(part[3]));
}
template <typename T> struct alignas(4 * sizeof(T)) Four {
    T number[4];
};
template <typename T> __device__ __forceinline__ void put_four(T *to, float4 numbers) {
    Four<T> four = {narrow<T>(numbers.x), narrow<T>(numbers.y), narrow<T>(numbers.z), narrow<T>(numbers.w)};
    *reinterpret_cast<Four<T> *>(to) = four;
}

// Sum over the 32 threads of a warp, known to all of them.
__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(~0u, value, distance);
    return value;
}

__device__ __forceinline__ float warp_max(float value) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) value = fmaxf(value, __shfl_xor_sync(~0u, value, distance));
    return value;
}
