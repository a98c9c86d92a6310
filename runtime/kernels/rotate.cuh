// Rotary positions, half-split: angles are cosines, then sines, of one position.
#pragma once
#include "element.cuh"

// Number `i` of the rotated head x of `width` numbers.
__device__ __forceinline__ float rotated(const float *x, const float *angles, uint32_t width, uint32_t i) {
    uint32_t half = width / 2, pair = i < half ? i : i - half;
    if (pair >= half) return 0.f; // The last of an odd width has no partner.
    float low = x[pair], high = x[pair + half], cosine = angles[pair], sine = angles[pair + half];
    return i < half ? low * cosine - high * sine : high * cosine + low * sine;
}
