// Rows of the cache on their way to the threads that attend to them: each has a part of two rows in shared memory, which it alone
// writes and reads.
#pragma once
#include "eight_bits.cuh"
#include "instructions.cuh"

namespace single {

constexpr int WARPS = 4, LANES = 32, THREADS = LANES * WARPS;

// This one of the threads that have a part together. A block may have several groups of them.
__device__ __forceinline__ uint32_t thread() { return threadIdx.x % THREADS; }

// Eight numbers of so many bytes.
template <int BYTES> struct Eight;
template <> struct Eight<1> {
    using Type = uint2;
};
template <> struct Eight<2> {
    using Type = uint4;
};

// Scales of two rows for each thread of a warp, where rows have one.
template <bool SCALED> struct Scales {};
template <> struct Scales<true> {
    float of[2][LANES];
};

// What a thread has of two rows of the cache, eight apart: eight numbers of each 32, for all threads of a warp.
template <typename S, int HD> struct Pair : Scales<Kept<S>::SCALED> {
    using Piece = typename Eight<sizeof(S)>::Type;
    Piece rows[2][HD / 32][LANES];

    // Sends a row and the one behind it by `next` numbers, and their scales, which are as many apart as the rows are.
    __device__ __forceinline__ void send(const S *first, uint64_t next, const float *scale, uint32_t next_scale) {
        uint32_t lane = thread() % LANES;
#pragma unroll
        for (int i = 0; i < HD / 32; i++) {
            ::send(&rows[0][i][lane], first + i * 32);
            ::send(&rows[1][i][lane], first + next + i * 32);
        }
        if constexpr (Kept<S>::SCALED) {
            ::send(&this->of[0][lane], scale);
            ::send(&this->of[1][lane], scale + next_scale);
        }
    }
    __device__ __forceinline__ uint4 numbers(int n, int i) const {
        const Piece &piece = rows[n][i][thread() % LANES];
        if constexpr (Kept<S>::SCALED) {
            return eight_halves(piece, S());
        } else {
            return piece;
        }
    }
    // What the numbers of a row are to be multiplied with.
    __device__ __forceinline__ float times(int n) const {
        if constexpr (Kept<S>::SCALED) return Kept<S>::FOUR * this->of[n][thread() % LANES];
        return 1.f;
    }
};

} // namespace single
