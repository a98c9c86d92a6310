// Numbers of the cache in 8 bits: those of one head of one token times a scale. Rounded as on a processor
// (src/ops/kv_cache/eight_bits.rs), to the bit.
#pragma once
#include "element.cuh"

struct Int8 {
    uint8_t bits; // a signed integer
};
struct Fp8 {
    uint8_t bits; // E4M3
};

// 2 to the power of 120, between the exponents of E4M3 and of f32.
constexpr uint32_t FP8_SCALE = (127 + 120) << 23;
// 2 to the power of -64. A scale is no smaller, so that its inverse is a number too.
constexpr uint32_t LEAST_SCALE = (127 - 64) << 23;

// What numbers are that the cache keeps as T: what they are multiplied as, the largest, and what is to be multiplied to those
// that come by fours.
template <typename T> struct Kept {
    using Number = T;
    static constexpr bool SCALED = false;
};
template <> struct Kept<Int8> {
    using Number = __half;
    static constexpr bool SCALED = true;
    static constexpr float LARGEST = 127.f, FOUR = 1.f;
};
template <> struct Kept<Fp8> {
    using Number = __half;
    static constexpr bool SCALED = true;
    static constexpr float LARGEST = 448.f, FOUR = 256.f;
};

__device__ __forceinline__ float widen(Int8 value) { return (float)(int8_t)value.bits; }
__device__ __forceinline__ float widen(Fp8 value) {
    // The sign stays where it is, four places in between are cleared.
    return __uint_as_float((uint32_t)(int32_t)(int8_t)value.bits << 20 & 0x87f00000) * __uint_as_float(FP8_SCALE);
}

// Four of them in 16 bits, without what Kept::FOUR is; exact.
__device__ __forceinline__ uint2 four_halves(uint32_t bytes, Int8) {
    // 1024 and a number below 256 have that in their lowest bits.
    const __half2 less = __half2half2(__ushort_as_half(0x6480)); // 1024 + 128
    uint2 four;
    uint32_t positive = bytes ^ 0x80808080;
    four.x = __byte_perm(positive, 0x64646464, 0x4140), four.y = __byte_perm(positive, 0x64646464, 0x4342);
    __half2 &low = reinterpret_cast<__half2 &>(four.x), &high = reinterpret_cast<__half2 &>(four.y);
    low = __hsub2(low, less), high = __hsub2(high, less);
    return four;
}
__device__ __forceinline__ uint2 four_halves(uint32_t bytes, Fp8) {
    // An exponent of four bits becomes one of five, which begins eight lower.
    uint32_t low = __byte_perm(bytes, 0, 0x1404), high = __byte_perm(bytes, 0, 0x3424);
    return {(low & 0x80008000) | (low & 0x7f007f00) >> 1, (high & 0x80008000) | (high & 0x7f007f00) >> 1};
}
// The nearest of a number that is no larger than the largest.
__device__ __forceinline__ uint8_t nearest(float value, Int8) { return (uint8_t)(int8_t)__float2int_rn(value); }
__device__ __forceinline__ uint8_t nearest(float value, Fp8) {
    uint32_t bits = __float_as_uint(fabsf(value) * (1.f / __uint_as_float(FP8_SCALE)));
    return (uint8_t)((bits + 0x7ffff + (bits >> 20 & 1)) >> 20) | (uint8_t)(__float_as_uint(value) >> 24 & 0x80);
}

// The `width` numbers of a head, rounded, and their scale, by a warp; a scale that is no number where one of them is none.
// `number(i)` is number i.
template <typename T, typename Numbers>
__device__ __forceinline__ void keep(T *to, float *scale, uint32_t width, const Numbers &number) {
    uint32_t lane = threadIdx.x % 32, highest = 0;
    for (uint32_t i = lane; i < width; i += 32) highest = max(highest, __float_as_uint(number(i)) & 0x7fffffff);
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) highest = max(highest, __shfl_xor_sync(~0u, highest, distance));
    bool finite = highest < 0x7f800000;
    float own = fmaxf(__uint_as_float(highest) / Kept<T>::LARGEST, __uint_as_float(LEAST_SCALE)), inverse = 1.f / own;
    for (uint32_t i = lane; i < width; i += 32) {
        float value = fminf(fmaxf(number(i) * inverse, -Kept<T>::LARGEST), Kept<T>::LARGEST);
        to[i].bits = finite ? nearest(value, T()) : 0;
    }
    if (lane == 0) *scale = finite ? own : __uint_as_float(0x7fc00000);
}
