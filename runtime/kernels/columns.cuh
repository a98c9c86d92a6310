// Attention of a few queries to 16 keys by a warp, on tensor cores: queries are the columns of a product whose rows are keys, and
// then of one whose rows are the numbers of values. A thread has eight numbers side by side of two keys and two values, four
// times. In which order a product takes the numbers of a head is of no matter as long as both sides have the same.
#pragma once
#include "pair.cuh"
#include "product.cuh"
#include "rotate.cuh"

namespace single {

constexpr int KEYS = 16; // of a warp at a time
constexpr int QUERIES = 8;
constexpr float LOG2E = 1.44269504f;

// Numbers from one query to the next in shared memory: eight threads that read two of them side by side use all banks.
template <int HD> constexpr int STRIDE = HD % 64 == 0 ? HD + 32 : HD;

// What a warp knows of what the cache keeps as S: a thread has queries 2t and 2t + 1, t being its number in a group of four.
template <typename S, int HD> struct Warp {
    using T = typename Kept<S>::Number;
    const T *queries; // this thread's part of one, in shared memory
    float out[HD / 16][4], highest[2], sum[2];

    __device__ __forceinline__ void begin(const T (&all)[QUERIES][STRIDE<HD>]) {
        queries = all[thread() % 32 / 4] + thread() % 4 * 8;
#pragma unroll
        for (int i = 0; i < HD / 16; i++) out[i][0] = out[i][1] = out[i][2] = out[i][3] = 0.f;
        highest[0] = highest[1] = -INFINITY, sum[0] = sum[1] = 0.f;
    }

    // Scores of 16 keys, of which `visible` count: of keys lane / 4 and that + 8, two queries each.
    __device__ __forceinline__ void score(const Pair<S, HD> &keys, int visible, float (&scores)[4]) const {
        int key = thread() % 32 / 4;
        scores[0] = scores[1] = scores[2] = scores[3] = 0.f;
#pragma unroll
        for (int i = 0; i < HD / 32; i++) {
            uint4 low = keys.numbers(0, i), high = keys.numbers(1, i), query = *reinterpret_cast<const uint4 *>(queries + i * 32);
            product(scores, {low.x, high.x, low.y, high.y}, query.x, query.y, T());
            product(scores, {low.z, high.z, low.w, high.w}, query.z, query.w, T());
        }
        if constexpr (Kept<S>::SCALED) {
            scores[0] *= keys.times(0), scores[1] *= keys.times(0);
            scores[2] *= keys.times(1), scores[3] *= keys.times(1);
        }
        if (key >= visible) scores[0] = scores[1] = -INFINITY;
        if (key + 8 >= visible) scores[2] = scores[3] = -INFINITY;
    }

    // They become weights of the numbers of values. Where those have scales, a weight is times that, and so is the largest of
    // all: whatever scales are, no weight is more than 1, and those that matter are not too small for 16 bits.
    __device__ __forceinline__ void weigh(float (&scores)[4], const Pair<S, HD> &values) {
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

    // Adds the values of the 16 keys.
    __device__ __forceinline__ void add(const Pair<S, HD> &values, const float (&weights)[4]) {
        uint32_t low = transposed(two(weights[0], weights[1], T())), high = transposed(two(weights[2], weights[3], T()));
#pragma unroll
        for (int i = 0; i < HD / 32; i++) {
            uint4 a = values.numbers(0, i), b = values.numbers(1, i);
            product(out[2 * i], {transposed(a.x), transposed(a.y), transposed(b.x), transposed(b.y)}, low, high, T());
            product(out[2 * i + 1], {transposed(a.z), transposed(a.w), transposed(b.z), transposed(b.w)}, low, high, T());
        }
    }

    // Which number of a head out[i][2 * half] and the one behind it are of.
    __device__ static __forceinline__ uint32_t column(int i, int half) {
        uint32_t n = thread() % 32 / 4;
        return i / 2 * 32 + n / 2 * 8 + i % 2 * 4 + half * 2 + n % 2;
    }
};

} // namespace single
