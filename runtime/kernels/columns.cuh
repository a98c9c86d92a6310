// Attention of a few queries to 16 keys by a warp, on tensor cores: queries are the columns of a product whose rows are keys, and
// then of one whose rows are the numbers of values. In which order a product takes the numbers of a head is of no matter as long
// as both sides have the same.
#pragma once
#include "product.cuh"
#include "rotate.cuh"
#include "sixteen.cuh"

namespace single {

constexpr int QUERIES = 8;
constexpr float LOG2E = 1.44269504f;

// Numbers from one query to the next in shared memory: eight threads that read two of them side by side use all banks.
template <int HD> constexpr int STRIDE = HD % 64 == 0 ? HD + 32 : HD;

// What a warp knows of what the cache keeps as S: a thread has queries 2t and 2t + 1, t being its number in a group of four.
template <typename S, int HD> struct Warp {
    using T = typename Kept<S>::Number;
    using Rows = Sixteen<S, HD>;
    uint2 queries[HD / 16]; // of each 16 numbers those that a thread has as a column
    float out[HD / 16][4], highest[2], sum[2];

    __device__ __forceinline__ void begin(const T (&all)[QUERIES][STRIDE<HD>]) {
        const T *own = all[thread() % 32 / 4];
        const uint32_t t = thread() % 4;
#pragma unroll
        for (int i = 0; i < HD / 16; i++) {
            if constexpr (Kept<S>::SCALED) {
                // Four side by side, as keys in 8 bits have them.
                queries[i] = *reinterpret_cast<const uint2 *>(own + i * 16 + t * 4);
            } else {
                const uint32_t *two = reinterpret_cast<const uint32_t *>(own + i * 16 + t * 2);
                queries[i] = make_uint2(two[0], two[4]);
            }
            out[i][0] = out[i][1] = out[i][2] = out[i][3] = 0.f;
        }
        highest[0] = highest[1] = -INFINITY, sum[0] = sum[1] = 0.f;
    }

    // Scores of 16 keys, of which `visible` count: of keys lane / 4 and that + 8, two queries each. Of every second product apart,
    // since each waits for the one before.
    __device__ __forceinline__ void score(const Rows &keys, int visible, float (&scores)[4]) const {
        int key = thread() % 32 / 4;
        float others[4] = {};
        scores[0] = scores[1] = scores[2] = scores[3] = 0.f;
#pragma unroll
        for (int i = 0; i < Rows::PIECES / 2; i++) {
            uint32_t a[4];
            matrices(a, keys.by_pieces(2 * i));
            if constexpr (Kept<S>::SCALED) {
                uint2 low = four_halves(a[0], S()), high = four_halves(a[1], S());
                product(scores, {low.x, high.x, low.y, high.y}, queries[2 * i].x, queries[2 * i].y, T());
                low = four_halves(a[2], S()), high = four_halves(a[3], S());
                product(others, {low.x, high.x, low.y, high.y}, queries[2 * i + 1].x, queries[2 * i + 1].y, T());
            } else {
                product(i % 2 ? others : scores, a, queries[i].x, queries[i].y, T());
            }
        }
#pragma unroll
        for (int n = 0; n < 4; n++) scores[n] = (scores[n] + others[n]) * keys.times(n / 2);
        if (key >= visible) scores[0] = scores[1] = -INFINITY;
        if (key + 8 >= visible) scores[2] = scores[3] = -INFINITY;
    }

    // They become weights of the numbers of values. Where those have scales, a weight is times that, and so is the largest of
    // all: whatever scales are, no weight is more than 1, and those that matter are not too small for 16 bits.
    __device__ __forceinline__ void weigh(float (&scores)[4], const Rows &values) {
        float correction[2], less[2] = {1.f, 1.f};
        if constexpr (Kept<S>::SCALED) {
#pragma unroll
            for (int n = 0; n < 2; n++) {
                float more = log2f(values.times(n));
                scores[2 * n] += more, scores[2 * n + 1] += more, less[n] = 1.f / values.times(n);
            }
        }
#pragma unroll
        for (int q = 0; q < 2; q++) {
            float largest = fmaxf(highest[q], fmaxf(scores[q], scores[q + 2]));
#pragma unroll
            for (int distance = 4; distance < 32; distance *= 2) {
                largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, distance));
            }
            correction[q] = power(highest[q] - largest), highest[q] = largest;
            scores[q] = power(scores[q] - largest), scores[q + 2] = power(scores[q + 2] - largest);
            sum[q] = sum[q] * correction[q] + scores[q] * less[0] + scores[q + 2] * less[1];
        }
#pragma unroll
        for (int i = 0; i < HD / 16; i++) {
            out[i][0] *= correction[0], out[i][1] *= correction[1];
            out[i][2] *= correction[0], out[i][3] *= correction[1];
        }
    }

    // Adds the values of the 16 keys. Weights become columns of keys.
    __device__ __forceinline__ void add(const Rows &values, const float (&weights)[4]) {
        uint32_t low = transposed(two(weights[0], weights[1], T())), high = transposed(two(weights[2], weights[3], T())), a[4];
#pragma unroll
        for (int i = 0; i < Rows::PIECES / 2; i++) {
            if constexpr (Kept<S>::SCALED) {
                transposed(a, values.by_pieces(2 * i));
                add_pairs(out[2 * i], a[0], a[1], low, high);
                add_pairs(out[2 * i + 1], a[2], a[3], low, high);
            } else {
                transposed(a, values.by_rows(2 * i));
                product(out[i], a, low, high, T());
            }
        }
    }
    // The numbers 2g and 2g + 1 of two keys, and of two others.
    __device__ static __forceinline__ void add_pairs(float (&to)[4], uint32_t a, uint32_t b, uint32_t low, uint32_t high) {
        uint2 first = four_halves(__byte_perm(a, 0, 0x3120), S()), second = four_halves(__byte_perm(b, 0, 0x3120), S());
        product(to, {first.x, first.y, second.x, second.y}, low, high, T());
    }

    // Which number of a head out[i][2 * half] and the one behind it are of.
    __device__ static __forceinline__ uint32_t column(int i, int half) {
        const uint32_t g = thread() % 32 / 4;
        return i * 16 + (Kept<S>::SCALED ? g * 2 + half : half * 8 + g);
    }
};

} // namespace single
