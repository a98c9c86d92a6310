// Products of quantised weights (formats.cuh) with rows in 8 bits (rounded.cuh), which are exact within what shares a scale.
#pragma once
#include "instructions.cuh"
#include "element.cuh"
#include "formats.cuh"
#include "product.cuh"
#include "rounded.cuh"

namespace packed {

__device__ __forceinline__ float2 scales(uint32_t two) { return __half22float2(reinterpret_cast<__half2 &>(two)); }

__device__ __forceinline__ uint32_t word(const uint4 &four, int n) {
    return n == 0 ? four.x : n == 1 ? four.y : n == 2 ? four.z : four.w;
}

// What a thread holds of a chunk.
template <typename F> struct Chunk {
    uint4 numbers[F::NUMBERS], heads[F::HEADS];

    __device__ __forceinline__ void load(const uint8_t *from) {
        uint32_t lane = threadIdx.x % 32;
#pragma unroll
        for (int n = 0; n < F::NUMBERS; n++) numbers[n] = stream(from + n * 512 + lane * 16);
#pragma unroll
        for (int h = 0; h < F::HEADS; h++) {
            heads[h] = stream(from + F::NUMBERS * 512 + (lane % 4 * F::HEADS + h) * 16);
        }
    }
    // The same from shared memory.
    __device__ __forceinline__ void take(const uint8_t *from) {
        const uint4 *fours = reinterpret_cast<const uint4 *>(from);
        uint32_t lane = threadIdx.x % 32;
#pragma unroll
        for (int n = 0; n < F::NUMBERS; n++) numbers[n] = fours[n * 32 + lane];
#pragma unroll
        for (int h = 0; h < F::HEADS; h++) heads[h] = fours[F::NUMBERS * 32 + lane % 4 * F::HEADS + h];
    }
    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int n = 0; n < F::NUMBERS; n++) numbers[n] = make_uint4(0, 0, 0, 0);
#pragma unroll
        for (int h = 0; h < F::HEADS; h++) heads[h] = make_uint4(0, 0, 0, 0);
    }
    // Word `n` of the thread's numbers.
    __device__ __forceinline__ uint32_t word(int n) const {
        return packed::word(numbers[n / 4], n % 4);
    }
};

// Adds the products of a group of 32 numbers under their scales. `less`: what each weight is too large by.
template <typename R>
__device__ __forceinline__ void add(float (&sums)[R::TILES][4], const R &rows, uint32_t group, uint32_t b0, uint32_t b1,
                                    float2 scale, int less) {
#pragma unroll
    for (int m = 0; m < R::TILES; m++) {
        int c[4];
        product(c, rows.numbers(group, m), b0, b1);
        if (less) {
            int2 sum = rows.sums_of_group(group, m);
            c[0] -= less * sum.x, c[1] -= less * sum.x, c[2] -= less * sum.y, c[3] -= less * sum.y;
        }
        float2 of = rows.scales(group, m);
        sums[m][0] += scale.x * of.x * c[0], sums[m][1] += scale.y * of.x * c[1];
        if (R::HALF) continue;
        sums[m][2] += scale.x * of.y * c[2], sums[m][3] += scale.y * of.y * c[3];
    }
}

template <typename R>
__device__ __forceinline__ void times(float (&sums)[R::TILES][4], const Chunk<Q8_0> &w, const R &rows, uint32_t chunk) {
#pragma unroll
    for (int g = 0; g < 4; g++) {
        add(sums, rows, chunk * 4 + g, w.word(2 * g), w.word(2 * g + 1), scales(word(w.heads[0], g)), 0);
    }
}

constexpr uint32_t LOW = 0x0f0f0f0f;

template <typename R>
__device__ __forceinline__ void times(float (&sums)[R::TILES][4], const Chunk<Q4_0> &w, const R &rows, uint32_t chunk) {
#pragma unroll
    for (int g = 0; g < 4; g++) {
        uint32_t both = w.word(g);
        add(sums, rows, chunk * 4 + g, both & LOW, both >> 4 & LOW, scales(word(w.heads[0], g)), 8);
    }
}

// The head of a block of Q4_K: scale, scale of the minima, and in 6 bits each the scales and minima of eight groups.
struct Head {
    float2 scale;
    uint32_t scales[2], minima[2];

    __device__ __forceinline__ explicit Head(const uint4 &of) : scale(packed::scales(of.x)) {
        constexpr uint32_t SIX = 0x3f3f3f3f, TWO = 0x30303030;
        scales[0] = of.y & SIX, minima[0] = of.z & SIX;
        scales[1] = (of.w & LOW) | (of.y >> 2 & TWO), minima[1] = (of.w >> 4 & LOW) | (of.z >> 2 & TWO);
    }
    __device__ __forceinline__ int group(int g) const { return scales[g / 4] >> (8 * (g % 4)) & 63; }
    // The sum of eight groups' minima times the sums of a row's groups.
    __device__ __forceinline__ int offset(const uint4 &sums) const {
        int all = __dp2a_lo((int)sums.x, (int)minima[0], 0);
        all = __dp2a_hi((int)sums.y, (int)minima[0], all);
        all = __dp2a_lo((int)sums.z, (int)minima[1], all);
        return __dp2a_hi((int)sums.w, (int)minima[1], all);
    }
    // A product of eight groups as a number.
    __device__ __forceinline__ float times(int product, const uint4 &sums) const {
        return scale.x * product - scale.y * offset(sums);
    }
};

template <typename R>
__device__ __forceinline__ void times(float (&sums)[R::TILES][4], const Chunk<Q4_K> &w, const R &rows, uint32_t chunk) {
    const Head first(w.heads[0]), second(w.heads[1]);
    int all[R::TILES][4] = {};
#pragma unroll
    for (int g = 0; g < 8; g++) {
        uint32_t b0 = w.word(g / 2 * 2) >> (g % 2 * 4) & LOW, b1 = w.word(g / 2 * 2 + 1) >> (g % 2 * 4) & LOW;
        int of_first = first.group(g), of_second = second.group(g);
#pragma unroll
        for (int m = 0; m < R::TILES; m++) {
            int c[4];
            product(c, rows.numbers(chunk * 8 + g, m), b0, b1);
            all[m][0] += of_first * c[0], all[m][1] += of_second * c[1];
            if (R::HALF) continue;
            all[m][2] += of_first * c[2], all[m][3] += of_second * c[3];
        }
    }
#pragma unroll
    for (int m = 0; m < R::TILES; m++) {
        float2 of = rows.scales(chunk, m);
        uint4 low = rows.sums_of_eight(chunk, m, 0);
        sums[m][0] += of.x * first.times(all[m][0], low), sums[m][1] += of.x * second.times(all[m][1], low);
        if (R::HALF) continue;
        uint4 high = rows.sums_of_eight(chunk, m, 1);
        sums[m][2] += of.y * first.times(all[m][2], high), sums[m][3] += of.y * second.times(all[m][3], high);
    }
}

} // namespace packed
