// Rows in 8 bits as tensor cores take them, beside quantised weights: the Q8_0 and Q8_K of GGUF with scales in f32
// (ops/linear/activations.rs), in tiles of 16 rows, or a half of one. First the numbers: of a group of 32, thread 4·g + t has four
// words, the numbers from 4·t on of row g and of row g + 8, and those from 16 + 4·t on; of half a tile, the words of row g of
// two groups. Then the scales of rows g and g + 8, and last the sums of groups where a format needs them.
#pragma once
#include "element.cuh"
#include "formats.cuh"

namespace rounded {

// Rows of so many tiles under the scales of a format, all in the same memory. `width`: numbers of a row, whole chunks.
template <typename F, int ROWS> struct Rows {
    static constexpr bool HALF = ROWS == 8;
    static constexpr int TILES = HALF ? 1 : ROWS / 16;
    uint8_t *at;
    uint32_t width;

    __device__ __forceinline__ Rows(void *at, uint32_t width) : at((uint8_t *)at), width(width) {}
    __device__ __forceinline__ uint8_t *scales_at() const { return at + (size_t)width * (HALF ? 8 : ROWS); }
    __device__ __forceinline__ uint8_t *sums_at() const { return scales_at() + (size_t)width / F::SCALED * TILES * 64; }
    __device__ __forceinline__ uint32_t bytes() const {
        uint32_t sums = F::SUMS == packed::NONE ? 0 : F::SUMS == packed::OF_GROUPS ? width / 32 * TILES * 64 : width / 256 * TILES * 256;
        return (uint32_t)(sums_at() - at) + sums;
    }

    // A thread's part of a group of tile m.
    __device__ __forceinline__ uint4 numbers(uint32_t group, int m) const {
        uint32_t lane = threadIdx.x % 32;
        if (!HALF) return reinterpret_cast<const uint4 *>(at)[(group * TILES + m) * 32 + lane];
        uint2 two = reinterpret_cast<const uint2 *>(at)[(group / 2 * 32 + lane) * 2 + group % 2];
        return make_uint4(two.x, 0, two.y, 0);
    }
    // Of rows g and g + 8 of tile m: their scales in the part `n` that has one.
    __device__ __forceinline__ float2 scales(uint32_t n, int m) const {
        return reinterpret_cast<const float2 *>(scales_at())[(n * TILES + m) * 8 + threadIdx.x % 32 / 4];
    }
    __device__ __forceinline__ int2 sums_of_group(uint32_t group, int m) const {
        return reinterpret_cast<const int2 *>(sums_at())[(group * TILES + m) * 8 + threadIdx.x % 32 / 4];
    }
    // Of row g, or g + 8, of tile m: the sums of the eight groups of a chunk, in 16 bits.
    __device__ __forceinline__ uint4 sums_of_eight(uint32_t chunk, int m, int half) const {
        return reinterpret_cast<const uint4 *>(sums_at())[((chunk * TILES + m) * 2 + half) * 8 + threadIdx.x % 32 / 4];
    }

    // Where eight numbers go that begin at `k` of a row: two words, for threads that follow each other.
    __device__ __forceinline__ void put(uint32_t row, uint32_t k, uint32_t low, uint32_t high) const {
        uint32_t group = k / 32, w = k % 32 / 4, half = row % 16 / 8, lane = row % 8 * 4 + w % 4;
        uint32_t n = HALF ? (group / 2 * 32 + lane) * 4 + group % 2 * 2 + w / 4
                          : ((group * TILES + row / 16) * 32 + lane) * 4 + half + w / 4 * 2;
        uint32_t *to = reinterpret_cast<uint32_t *>(at) + n;
        to[0] = low, to[4] = high;
    }
    __device__ __forceinline__ void put_scale(uint32_t row, uint32_t k, float scale) const {
        uint32_t n = (k / F::SCALED * TILES + row / 16) * 8 + row % 8;
        float *two = reinterpret_cast<float *>(scales_at()) + n * 2;
        two[row % 16 / 8] = scale;
        // What is read with it is written as well.
        if (HALF) two[1] = 0.f;
    }
    __device__ __forceinline__ void put_sum(uint32_t row, uint32_t k, int sum) const {
        uint32_t group = k / 32, tile = row / 16, half = row % 16 / 8, g = row % 8;
        if (F::SUMS == packed::OF_GROUPS) {
            int *two = reinterpret_cast<int *>(sums_at()) + ((group * TILES + tile) * 8 + g) * 2;
            two[half] = sum;
            if (HALF) two[1] = 0;
        }
        if (F::SUMS == packed::OF_EIGHT) {
            int16_t *eight = reinterpret_cast<int16_t *>(sums_at()) + (group / 8 * TILES + tile) * 128;
            eight[(half * 8 + g) * 8 + group % 8] = (int16_t)sum;
            if (HALF) eight[(8 + g) * 8 + group % 8] = 0;
        }
    }
};

// Numbers times what makes the largest 127, and with what they are themselves again. What is not finite is not lost: it is
// in the scale. A magnitude is ordered as its bits are.
template <typename F> struct Scale {
    float scale, inverse;

    __device__ __forceinline__ explicit Scale(const float (&x)[8]) {
        uint32_t largest = 0;
#pragma unroll
        for (int i = 0; i < 8; i++) largest = max(largest, __float_as_uint(x[i]) & 0x7fffffffu);
#pragma unroll
        for (int distance = 1; distance < F::SCALED / 8; distance *= 2) {
            largest = max(largest, __shfl_xor_sync(~0u, largest, distance));
        }
        scale = __uint_as_float(largest) / 127.f;
        inverse = scale > 0.f ? 1.f / scale : 0.f;
    }
    __device__ __forceinline__ uint32_t number(float x) const { return (uint32_t)__float2int_rn(x * inverse) & 255; }
    __device__ __forceinline__ uint32_t word(const float *x) const {
        return number(x[0]) | number(x[1]) << 8 | number(x[2]) << 16 | number(x[3]) << 24;
    }
};

// Rounds `count` rows of `inner` numbers from number `begin` on; what is behind their end, and rows behind the last of `rows`,
// are zeros. `numbers(row, k)` has four of them. Eight a thread, of which there are `threads`, this one `thread`; all warps
// are whole.
template <typename F, int ROWS, typename Numbers>
__device__ __forceinline__ void round(const Rows<F, ROWS> &to, const Numbers &numbers, uint32_t inner, uint32_t begin,
                                      uint32_t rows, uint32_t count, uint32_t thread, uint32_t threads) {
    const uint32_t eights = to.width / 8;
    for (uint32_t n = thread; n - n % 32 < eights * count; n += threads) {
        uint32_t row = n / eights, k = n % eights * 8;
        bool is = row < rows && begin + k < inner;
        float eight[8];
#pragma unroll
        for (int i = 0; i < 8; i += 4) {
            float4 some = is ? numbers(row, begin + k + i) : make_float4(0, 0, 0, 0);
            eight[i] = some.x, eight[i + 1] = some.y, eight[i + 2] = some.z, eight[i + 3] = some.w;
        }
        const Scale<F> scale(eight);
        uint32_t low = scale.word(eight), high = scale.word(eight + 4);
        int sum = __dp4a((int)low, 0x01010101, __dp4a((int)high, 0x01010101, 0));
        sum += __shfl_xor_sync(~0u, sum, 1), sum += __shfl_xor_sync(~0u, sum, 2);
        if (row >= count) continue;
        to.put(row, k, low, high);
        if (k % F::SCALED == 0) to.put_scale(row, k, scale.scale);
        if (k % 32 == 0) to.put_sum(row, k, sum);
    }
}

} // namespace rounded
