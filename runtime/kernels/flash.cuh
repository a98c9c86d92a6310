// Softmax attention on tensor cores: 64 queries of a head to keys that come in tiles of 64, products of numbers in 16 bits,
// sums and softmax in f32 (Dao 2023). Four warps a block, 16 queries a warp; the sums are corrected when a larger score
// comes. HD is the width of a head in shared memory: that of the model, filled up with zeros.
#pragma once
#include "instructions.cuh"
#include "product.cuh"

namespace flash {

constexpr int QUERIES = 64; // of a block
constexpr int KEYS = 64;    // of a tile
constexpr int THREADS = 128;

// As many blocks to a multiprocessor as their registers are worth.
#define FLASH_BOUNDS(HD) __launch_bounds__(flash::THREADS, HD <= 64 ? 4 : 3)

// Numbers from one row in shared memory to the next: eight rows that are read side by side use all banks.
template <int HD> constexpr int STRIDE = HD + 8;
// Those of the queries, which become the keys' when they are in registers, and of the values.
template <int HD> constexpr int SHARED = (KEYS + KEYS) * STRIDE<HD>;

// Rows in 16 bits to a tile in shared memory; those from `count` on, and numbers from `width` on, become zero. `whole`: rows
// begin at multiples of 16 bytes and have whole eights. All places are found before the first is sent to: finding one takes
// a read.
template <typename T, int HD, typename Rows>
__device__ __forceinline__ void load(T *tile, Rows row, int count, int width, bool whole) {
    if (whole) {
        constexpr int OWN = KEYS * (HD / 8) / THREADS;
        int column = threadIdx.x % (HD / 8) * 8, begin = threadIdx.x / (HD / 8);
        const T *from[OWN];
#pragma unroll
        for (int n = 0; n < OWN; n++) {
            int at = begin + n * (THREADS / (HD / 8));
            from[n] = row(at < count ? at : 0) + (column < width ? column : 0);
        }
#pragma unroll
        for (int n = 0; n < OWN; n++) {
            int at = begin + n * (THREADS / (HD / 8));
            send(tile + at * STRIDE<HD> + column, from[n], at < count && column < width);
        }
        return;
    }
    for (int i = threadIdx.x; i < KEYS * (HD / 8); i += THREADS) {
        int at = i / (HD / 8), column = i % (HD / 8) * 8;
        const T *from = row(at < count ? at : 0);
        for (int n = 0; n < 8; n++) {
            tile[at * STRIDE<HD> + column + n] =
                at < count && column + n < width ? from[column + n] : narrow<T>(0.f);
        }
    }
}

// The same of rows in 8 bits, of which `scale(i)` is that of row i. `whole`: rows begin at multiples of 8 bytes and have
// whole eights.
template <typename T, int HD, typename Rows, typename Scales>
__device__ __forceinline__ void load_scaled(T *tile, Rows row, Scales scale, int count, int width, bool whole) {
    constexpr int OWN = KEYS * (HD / 8) / THREADS, APART = THREADS / (HD / 8);
    int column = threadIdx.x % (HD / 8) * 8, begin = threadIdx.x / (HD / 8);
    bool any = column < width;
    uint2 bytes[OWN];
    float scales[OWN];
#pragma unroll
    for (int n = 0; n < OWN; n++) {
        int at = begin + n * APART;
        bool is = at < count && any;
        auto from = row(at < count ? at : 0) + (any ? column : 0);
        bytes[n] = {0, 0}, scales[n] = is ? scale(at) : 0.f;
        if (is && whole) {
            bytes[n] = __ldg(reinterpret_cast<const uint2 *>(from));
        } else if (is) {
#pragma unroll
            for (int i = 0; i < 8; i++) {
                uint32_t byte = column + i < width ? from[i].bits : 0;
                (i < 4 ? bytes[n].x : bytes[n].y) |= byte << i % 4 * 8;
            }
        }
    }
#pragma unroll
    for (int n = 0; n < OWN; n++) {
        using S = typename std::remove_const<typename std::remove_pointer<decltype(row(0))>::type>::type;
        const S *eight = reinterpret_cast<const S *>(bytes + n);
        uint4 words;
        words.x = two(scales[n] * widen(eight[0]), scales[n] * widen(eight[1]), T());
        words.y = two(scales[n] * widen(eight[2]), scales[n] * widen(eight[3]), T());
        words.z = two(scales[n] * widen(eight[4]), scales[n] * widen(eight[5]), T());
        words.w = two(scales[n] * widen(eight[6]), scales[n] * widen(eight[7]), T());
        *reinterpret_cast<uint4 *>(tile + (begin + n * APART) * STRIDE<HD> + column) = words;
    }
}

// The same of rows in f32, rounded. `whole`: rows begin at multiples of 16 bytes and have whole fours. Eight reads are on
// their way together.
template <typename T, int HD, typename Rows>
__device__ __forceinline__ void load_rounded(T *tile, Rows row, int count, int width, bool whole) {
    constexpr int FLIGHT = 8, APART = THREADS / (HD / 4);
    int column = threadIdx.x % (HD / 4) * 4;
    for (int begin = threadIdx.x / (HD / 4); begin < KEYS; begin += FLIGHT * APART) {
        float4 four[FLIGHT];
#pragma unroll
        for (int n = 0; n < FLIGHT; n++) {
            int at = begin + n * APART;
            four[n] = make_float4(0.f, 0.f, 0.f, 0.f);
            if (at >= count || column >= width) continue;
            const float *from = row(at) + column;
            if (whole) {
                four[n] = __ldg(reinterpret_cast<const float4 *>(from));
            } else {
                four[n].x = from[0];
                if (column + 1 < width) four[n].y = from[1];
                if (column + 2 < width) four[n].z = from[2];
                if (column + 3 < width) four[n].w = from[3];
            }
        }
#pragma unroll
        for (int n = 0; n < FLIGHT; n++) {
            uint2 pair = {two(four[n].x, four[n].y, T()), two(four[n].z, four[n].w, T())};
            *reinterpret_cast<uint2 *>(tile + (begin + n * APART) * STRIDE<HD> + column) = pair;
        }
    }
}

// What a warp knows of its 16 queries. A thread has columns 2t and 2t + 1 of every eight, t being its number in a group of
// four, of two rows, 8 apart.
template <typename T, int HD> struct Queries {
    uint32_t query[HD / 16][4];
    float out[HD / 8][4], highest[2], sum[2];

    // From the tile of queries, which is complete.
    __device__ __forceinline__ void begin(const T *tile) {
        int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
        for (int k = 0; k < HD / 16; k++) {
            matrices(query[k], tile + (warp * 16 + lane % 16) * STRIDE<HD> + k * 16 + lane / 16 * 8);
        }
#pragma unroll
        for (int n = 0; n < HD / 8; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) out[n][i] = 0.f;
        }
        highest[0] = highest[1] = -INFINITY, sum[0] = sum[1] = 0.f;
    }

    __device__ __forceinline__ void score(const T *keys, float (&scores)[KEYS / 8][4]) const {
        int lane = threadIdx.x % 32;
        const T *row = keys + (lane / 16 * 8 + lane % 8) * STRIDE<HD> + lane / 8 % 2 * 8;
#pragma unroll
        for (int n = 0; n < KEYS / 8; n += 2) {
#pragma unroll
            for (int i = 0; i < 4; i++) scores[n][i] = scores[n + 1][i] = 0.f;
#pragma unroll
            for (int k = 0; k < HD / 16; k++) {
                uint32_t key[4];
                matrices(key, row + n * 8 * STRIDE<HD> + k * 16);
                product(scores[n], query[k], key[0], key[1], T());
                product(scores[n + 1], query[k], key[2], key[3], T());
            }
        }
    }

    // Scores become weights. `visible` keys of the tile count for each of the thread's two rows; `all` says that every key
    // counts for every row of the block.
    __device__ __forceinline__ void weigh(float (&scores)[KEYS / 8][4], const int (&visible)[2], bool all) {
        constexpr float LOG2E = 1.44269504f;
        int column = threadIdx.x % 4 * 2;
        if (!all) {
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++) {
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    if (n * 8 + column + i % 2 >= visible[i / 2]) scores[n][i] = -INFINITY;
                }
            }
        }
#pragma unroll
        for (int row = 0; row < 2; row++) {
            float largest = highest[row];
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++) largest = fmaxf(largest, fmaxf(scores[n][2 * row], scores[n][2 * row + 1]));
            largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 1));
            largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 2));
            // Every query sees the first key of all, so that there is one by now.
            float correction = power((highest[row] - largest) * LOG2E), added = 0.f, less = -largest * LOG2E;
            highest[row] = largest;
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++) {
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    float &score = scores[n][2 * row + i];
                    score = power(fmaf(score, LOG2E, less));
                    added += score;
                }
            }
            sum[row] = sum[row] * correction + added;
#pragma unroll
            for (int n = 0; n < HD / 8; n++) {
                out[n][2 * row] *= correction;
                out[n][2 * row + 1] *= correction;
            }
        }
    }

    __device__ __forceinline__ void add(const T *values, const float (&weights)[KEYS / 8][4]) {
        int lane = threadIdx.x % 32;
        const T *row = values + lane % 16 * STRIDE<HD> + lane / 16 * 8;
#pragma unroll
        for (int k = 0; k < KEYS / 16; k++) {
            const float(&low)[4] = weights[2 * k], (&high)[4] = weights[2 * k + 1];
            uint32_t weight[4] = {two(low[0], low[1], T()), two(low[2], low[3], T()), two(high[0], high[1], T()),
                                  two(high[2], high[3], T())};
#pragma unroll
            for (int n = 0; n < HD / 8; n += 2) {
                uint32_t value[4];
                transposed(value, row + k * 16 * STRIDE<HD> + n * 8);
                product(out[n], weight, value[0], value[1], T());
                product(out[n + 1], weight, value[2], value[3], T());
            }
        }
    }

    // `to(n)` is where query n of the block goes, which has `width` numbers.
    template <typename Rows> __device__ __forceinline__ void write(Rows to, int count, int width) {
        int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
        for (int row = 0; row < 2; row++) {
            sum[row] += __shfl_xor_sync(~0u, sum[row], 1);
            sum[row] += __shfl_xor_sync(~0u, sum[row], 2);
            int index = warp * 16 + row * 8 + lane / 4;
            if (index >= count) continue;
            auto at = to(index);
            using Out = typename std::remove_pointer<decltype(at)>::type;
            float scale = 1.f / sum[row];
            bool pairs = width % 2 == 0 && reinterpret_cast<size_t>(at) % (2 * sizeof(Out)) == 0;
#pragma unroll
            for (int n = 0; n < HD / 8; n++) {
                int column = n * 8 + lane % 4 * 2;
                if (pairs) {
                    if (column < width) put_two(at + column, scale * out[n][2 * row], scale * out[n][2 * row + 1]);
                    continue;
                }
                if (column < width) at[column] = narrow<Out>(scale * out[n][2 * row]);
                if (column + 1 < width) at[column + 1] = narrow<Out>(scale * out[n][2 * row + 1]);
            }
        }
    }
};

// Attention of the queries in `keys`, a tile of shared memory that is used again, to `tokens` keys. `fetch(tile, first,
// count, of_values)` loads `count` keys or values from the `first` on. Query n of the block sees `seen(n)` keys, at least one, and
// no fewer than those before it.
template <typename T, int HD, typename Fetch, typename Seen, typename Rows>
__device__ __forceinline__ void attend(T *keys, T *values, int tokens, Fetch fetch, Seen seen, Rows to, int count,
                                       int width) {
    Queries<T, HD> queries;
    __syncthreads();
    queries.begin(keys);
    __syncthreads();
    int index = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4, own[2] = {(int)seen(index), (int)seen(index + 8)};
    int fewest = (int)seen(0);
    fetch(keys, 0, min(tokens, KEYS), false);
    sent();
    fetch(values, 0, min(tokens, KEYS), true);
    sent();
    for (int first = 0; first < tokens; first += KEYS) {
        int next = first + KEYS, left = min(tokens - next, KEYS), visible[2] = {own[0] - first, own[1] - first};
        float scores[KEYS / 8][4];
        arrived<1>();
        __syncthreads();
        queries.score(keys, scores);
        __syncthreads();
        if (left > 0) fetch(keys, next, left, false);
        sent();
        queries.weigh(scores, visible, next <= fewest);
        arrived<1>();
        __syncthreads();
        queries.add(values, scores);
        __syncthreads();
        if (left > 0) fetch(values, next, left, true);
        sent();
    }
    queries.write(to, count, width);
}

} // namespace flash
