// The products of tensor cores.
#pragma once
#include "element.cuh"

// c += a · b: a of 16 rows and 16 columns, b of 16 and 8.
#define PRODUCT(T, name)                                                                                              \
    __device__ __forceinline__ void product(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, T) {     \
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." name "." name                                           \
                     ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                           \
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                                 \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));                                 \
    }
PRODUCT(__half, "f16")
PRODUCT(__nv_bfloat16, "bf16")
#undef PRODUCT

// a · b of integers in 8 bits: a of 16 rows and 32 columns, b of 32 and 8.
__device__ __forceinline__ void product(int (&c)[4], const uint4 &a, uint32_t b0, uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%10, %10, %10, %10};"
                 : "=r"(c[0]), "=r"(c[1]), "=r"(c[2]), "=r"(c[3])
                 : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1), "r"(0));
}

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

// 2 to the power of what is not positive; what is too small to matter becomes zero.
__device__ __forceinline__ float power(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
