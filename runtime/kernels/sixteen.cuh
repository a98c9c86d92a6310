// Rows of the cache on their way to the warp that attends to them: keys, or values, of 16 tokens in shared memory, from where they
// are read as matrices of 8 by 8 words of 16 bits.
#pragma once
#include "eight_bits.cuh"
#include "instructions.cuh"

namespace single {

constexpr int WARPS = 4, LANES = 32, THREADS = LANES * WARPS;
constexpr int KEYS = 16; // of a warp at a time

// This one of the threads that have a share together. A block may have several groups of them.
__device__ __forceinline__ uint32_t thread() { return threadIdx.x % THREADS; }

// Scales of the rows, where they have them.
template <bool SCALED> struct Scales {};
template <> struct Scales<true> {
    float of[KEYS];
};

// 16 rows of HD numbers. Pieces of 16 bytes change places in a row, so that one piece of eight rows uses all banks.
template <typename S, int HD> struct Sixteen : Scales<Kept<S>::SCALED> {
    static constexpr int PIECE = 16 / sizeof(S), PIECES = HD / PIECE;
    static constexpr int ROUNDS = KEYS * PIECES / LANES;
    static_assert(KEYS * PIECES % LANES == 0, "all lanes send the same number of pieces");
    uint4 pieces[KEYS * PIECES];

    __device__ static __forceinline__ uint32_t place(uint32_t row, uint32_t piece) {
        return row * PIECES + (piece ^ (PIECES % 8 == 0 ? row % 8 : PIECES % 8 == 4 ? row / 2 % 4 : row / 4 % 2));
    }
    // Sends the first `count` rows, `apart` numbers from one to the next, and their scales. The first stands in for those behind.
    __device__ __forceinline__ void send(const S *first, uint32_t apart, const float *scales, uint32_t count) {
        const uint32_t lane = thread() % LANES;
#pragma unroll
        for (int n = 0; n < ROUNDS; n++) {
            const uint32_t at = n * LANES + lane, row = at / PIECES, piece = at % PIECES;
            ::send(pieces + place(row, piece), first + (row < count ? row : 0) * apart + piece * PIECE);
        }
        if constexpr (Kept<S>::SCALED) {
            if (lane < KEYS) ::send(this->of + lane, scales + (lane < count ? lane : 0));
        }
    }
    // What the numbers of the rows lane / 4, and that + 8, are to be multiplied with.
    __device__ __forceinline__ float times(int half) const {
        if constexpr (Kept<S>::SCALED) return Kept<S>::FOUR * this->of[thread() % LANES / 4 + half * 8];
        return 1.f;
    }
    // Matrices of two pieces: rows 0 to 7 and 8 to 15 of the first, then of the second.
    __device__ __forceinline__ const void *by_pieces(int piece) const {
        const uint32_t lane = thread() % LANES;
        return pieces + place(lane % KEYS, piece + lane / KEYS);
    }
    // The same matrices, both pieces of rows 0 to 7 and then of the others.
    __device__ __forceinline__ const void *by_rows(int piece) const {
        const uint32_t lane = thread() % LANES;
        return pieces + place(lane / 16 * 8 + lane % 8, piece + lane / 8 % 2);
    }
};

} // namespace single
