// Attention of one row of a sequence on tensor cores: up to eight query heads that share a kv head are the columns of a product
// whose rows are keys, and then of one whose rows are the numbers of values. A warp has 16 keys at a time, a thread eight numbers
// side by side of two keys and two values, four times. They come to shared memory that the thread alone writes and reads, DEPTH
// times of them ahead of what is used, so that the memory is never without work. Four warps take turns at the keys of a part; the
// last part of a row and its group of heads joins all of them. In which order a product takes the numbers of a head is of no
// matter as long as both sides have the same.
#pragma once
#include "cache.cuh"
#include "pair.cuh"
#include "product.cuh"
#include "rotate.cuh"
#include "together.cuh"

namespace single {

constexpr int KEYS = 16; // of a warp at a time
constexpr int QUERIES = 8;
constexpr int PART = WARPS * KEYS;  // keys that a block takes at once
constexpr float LOG2E = 1.44269504f;
constexpr int MOST_PARTS = 64;

// Numbers from one query to the next in shared memory: eight threads that read two of them side by side use all banks.
template <int HD> constexpr int STRIDE = HD % 64 == 0 ? HD + 32 : HD;

// Blocks that are done with their part, for each row and group of heads. The last of them joins the parts and begins anew.
constexpr uint32_t MOST_GROUPS = 1 << 16;
__device__ uint32_t done[MOST_GROUPS];

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

// Where a block of 32 or more tokens begins in the cache: 16 keys at a multiple of 16 are in one.
template <typename T> __device__ __forceinline__ const T *keys_at(const Cached<T> &source, uint32_t position) {
    uint32_t lane = thread() % 32;
    return source.cache + source.offset(position) + (uint64_t)(lane / 4) * source.at.token + lane % 4 * 8;
}

// What a warp has: keys and their values, and when it has seen all of them, what it has mixed.
template <typename S, int HD, int DEPTH> union Room {
    Pair<S, HD> pairs[DEPTH][2];
    float out[QUERIES][HD + 4];
};

// What a block shares: its queries, and the sums of its warps.
template <typename S, int HD, int DEPTH> struct Shared {
    using T = typename Kept<S>::Number;
    alignas(16) Room<S, HD, DEPTH> rooms[WARPS];
    alignas(16) T queries[QUERIES][STRIDE<HD>];
    float highest[WARPS][QUERIES], sum[WARPS][QUERIES], scales[WARPS][MOST_PARTS];
    bool last;

    // `heads` query heads one after another, turned; zeros behind them.
    __device__ __forceinline__ void take(const float *from, const float *angles, uint32_t heads) {
        float scale = LOG2E / sqrtf((float)HD);
#pragma unroll 4
        for (uint32_t i = thread(); i < QUERIES * (HD / 2); i += THREADS) {
            uint32_t n = i / (HD / 2), pair = i % (HD / 2);
            float low = 0.f, high = 0.f;
            if (n < heads) {
                float a = from[n * HD + pair], b = from[n * HD + pair + HD / 2];
                float cosine = scale * angles[pair], sine = scale * angles[pair + HD / 2];
                low = a * cosine - b * sine, high = b * cosine + a * sine;
            }
            queries[n][pair] = narrow<T>(low), queries[n][pair + HD / 2] = narrow<T>(high);
        }
    }

    __device__ __forceinline__ void put(Warp<S, HD> &warp) {
        uint32_t lane = thread() % 32, own = thread() / 32, query = lane % 4 * 2;
#pragma unroll
        for (int q = 0; q < 2; q++) {
#pragma unroll
            for (int distance = 4; distance < 32; distance *= 2) {
                warp.sum[q] += __shfl_xor_sync(~0u, warp.sum[q], distance);
            }
            if (lane < 4) highest[own][query + q] = warp.highest[q], sum[own][query + q] = warp.sum[q];
#pragma unroll
            for (int i = 0; i < HD / 16; i++) {
                rooms[own].out[query + q][Warp<S, HD>::column(i, 0)] = warp.out[i][q];
                rooms[own].out[query + q][Warp<S, HD>::column(i, 1)] = warp.out[i][2 + q];
            }
        }
    }

    // Joins the warps: `number` gets each mixed value of a query with its place and the sum of weights, and `sums` the largest score
    // and that sum. A warp has every fourth query. One that had no keys has a sum of zero and says nothing.
    template <typename Number, typename Sums>
    __device__ __forceinline__ void join(uint32_t heads, const Number &number, const Sums &sums) const {
        for (uint32_t q = thread() / LANES; q < heads; q += WARPS) {
            float largest = -INFINITY, all = 0.f, scale[WARPS];
#pragma unroll
            for (int w = 0; w < WARPS; w++) largest = fmaxf(largest, highest[w][q]);
#pragma unroll
            for (int w = 0; w < WARPS; w++) {
                scale[w] = sum[w][q] == 0.f ? 0.f : power(highest[w][q] - largest);
                all += scale[w] * sum[w][q];
            }
            for (uint32_t i = thread() % LANES; i < HD; i += LANES) {
                float mixed = 0.f;
#pragma unroll
                for (int w = 0; w < WARPS; w++) mixed += scale[w] * rooms[w].out[q][i];
                number(q, i, mixed, all);
            }
            if (thread() % LANES == 0) sums(q, largest, all);
        }
    }

    // Whether this block is the last of `parts` that is done, whose parts are then all there for reads that pass by the cache of a
    // multiprocessor.
    __device__ __forceinline__ bool is_last(uint32_t group, uint32_t parts) {
        group_together<THREADS>();
        if (thread() == 0) {
            last = counted(done + group) + 1 == parts;
            if (last) done[group] = 0;
        }
        group_together<THREADS>();
        return last;
    }

    // Joins the parts of a query of which there are `count`, by a warp.
    template <typename Out>
    __device__ __forceinline__ void join_parts(const float *parts, uint32_t count, Out *to) {
        uint32_t lane = thread() % 32;
        float *scale = scales[thread() / 32], high[MOST_PARTS / 32], largest = -INFINITY, all = 0.f;
#pragma unroll
        for (int n = 0; n < MOST_PARTS / 32; n++) {
            uint32_t s = n * 32 + lane;
            high[n] = s < count ? __ldcg(parts + s * (HD + 2) + HD) : -INFINITY;
            largest = fmaxf(largest, high[n]);
        }
        largest = warp_max(largest);
#pragma unroll
        for (int n = 0; n < MOST_PARTS / 32; n++) {
            uint32_t s = n * 32 + lane;
            float own = s < count ? power(high[n] - largest) : 0.f;
            if (s < count) all += own * __ldcg(parts + s * (HD + 2) + HD + 1);
            scale[s] = own;
        }
        all = 1.f / warp_sum(all);
        __syncwarp();
        // Two numbers side by side of each 64; of 16 parts at once, since each takes as long as all of them.
        constexpr int PAIRS = (HD + 63) / 64;
        float2 mixed[PAIRS] = {};
#pragma unroll 16
        for (uint32_t s = 0; s < count; s++) {
#pragma unroll
            for (int n = 0; n < PAIRS; n++) {
                uint32_t i = n * 64 + lane * 2;
                if (i >= HD) continue;
                float2 pair = __ldcg(reinterpret_cast<const float2 *>(parts + s * (HD + 2) + i));
                mixed[n].x += scale[s] * pair.x, mixed[n].y += scale[s] * pair.y;
            }
        }
#pragma unroll
        for (int n = 0; n < PAIRS; n++) {
            uint32_t i = n * 64 + lane * 2;
            if (i < HD) put_two(to + i, mixed[n].x * all, mixed[n].y * all);
        }
        __syncwarp();
    }
};

// The key, turned, and the value of a new token to their places in the cache.
template <int HD, typename S>
__device__ __forceinline__ void store(const Cached<S> &source, uint32_t position, const float *key, const float *values,
                                      const float *angles) {
    if constexpr (Kept<S>::SCALED) {
        keep_token(source, position, HD, key, values, angles, thread() / 32);
    } else {
        S *to = const_cast<S *>(source.key(position));
        for (uint32_t i = thread(); i < HD; i += THREADS) {
            to[i] = narrow<S>(rotated(key, angles, HD, i));
            to[source.at.value + i] = narrow<S>(values[i]);
        }
    }
}

// The keys of a part from `position` to `end`, by the warps of a block in turns: keys that are in the cache already, and maybe, as
// the last of all, one that is stored by this step.
template <typename T, int HD, int DEPTH> struct Turns {
    const Cached<T> &source;
    Pair<T, HD> (&pairs)[DEPTH][2];
    uint32_t position, end;

    // Rows behind the last are not read: others stand in for them, and count for nothing.
    __device__ __forceinline__ void send(Pair<T, HD> &to, uint32_t position, uint64_t which) const {
        uint32_t count = end - position, own = thread() % LANES / 4, next = own + 8 < count ? 8 : 0;
        const T *first = keys_at(source, position) + which;
        if (own >= count) first -= (uint64_t)own * source.at.token;
        const float *scale = Kept<T>::SCALED ? source.scale(position + (own < count ? own : 0), which) : nullptr;
        to.send(first, (uint64_t)next * source.at.token, scale, next);
    }
    __device__ __forceinline__ void send(int n, uint32_t position) const {
        send(pairs[n][0], position, 0);
        send(pairs[n][1], position, source.at.value);
    }
    // The first of them: `stored` says whether those that this step stores, which are the last of a warp, or all others.
    __device__ __forceinline__ void first(bool stored, uint32_t newest) const {
#pragma unroll
        for (int n = 0; n < DEPTH; n++) {
            uint32_t from = position + n * PART;
            bool has_newest = from <= newest && newest < from + KEYS;
            if (from < end && stored == has_newest) send(n, from);
            // A batch for each, whether it is empty or not. What is stored is one more, for whose end a warp waits at last.
            if (!stored) sent();
        }
        if (stored) sent();
    }
    __device__ __forceinline__ void attend(Warp<T, HD> &warp) {
        for (int n = 0; position < end; n = n + 1 == DEPTH ? 0 : n + 1) {
            const uint32_t next = position + PART, ahead = position + DEPTH * PART;
            if (next < end) {
                arrived<DEPTH - 1>();
            } else {
                arrived<0>();
            }
            float scores[4];
            warp.score(pairs[n][0], (int)(end - position), scores);
            warp.weigh(scores, pairs[n][1]);
            warp.add(pairs[n][1], scores);
            if (ahead < end) send(n, ahead);
            sent();
            position = next;
        }
    }
};

// What a step is computed with. Everything but qkv is there before its first kernel begins, and but the keys and values of its
// own rows where it `stores` those.
template <typename T, typename Out> struct Step {
    using Element = T;
    T *cache;
    Strides at;
    const uint32_t *tables;
    const Row *rows;
    const uint32_t *singles;
    const float *qkv, *angles;
    float *parts; // [singles, heads, parts, head dim + 2]: mixed values, largest score, sum of weights
    Out *out;
    Shape shape;
    uint32_t most; // parts of a row
    bool stores;

    // Groups of query heads that are multiplied together.
    __device__ __forceinline__ uint32_t groups() const {
        return shape.kv_heads * ((shape.heads / shape.kv_heads + QUERIES - 1) / QUERIES);
    }
};

// Part `n` of the keys of a single row, for a group of its heads: by four warps, and the last of all parts joins them. Calls
// `wait`, once by each thread, before it reads or writes what others do.
template <int HD, int DEPTH, typename T, typename Out, typename Wait>
__device__ __forceinline__ void part(const Step<T, Out> &step, uint32_t n, uint32_t group, uint32_t of_row,
                                     Shared<T, HD, DEPTH> &shared, const Wait &wait) {
    const Shape &shape = step.shape;
    uint32_t of_kv_head = shape.heads / shape.kv_heads, chunks = (of_kv_head + QUERIES - 1) / QUERIES;
    uint32_t kv_head = group / chunks, first = group % chunks * QUERIES;
    uint32_t heads = min(of_kv_head - first, (uint32_t)QUERIES), head = kv_head * of_kv_head + first;
    uint32_t index = step.singles[of_row];
    Row row = step.rows[index];
    uint32_t tokens = row.position + 1, steps = (tokens + PART - 1) / PART;
    uint32_t each = (steps + step.most - 1) / step.most * PART, count = (tokens + each - 1) / each;
    if (n >= count) return wait();
    uint32_t begin = n * each, end = min(begin + each, tokens);
    Cached<T> source = cached<T>(step.cache, step.tables, row, step.at, kv_head);
    Turns<T, HD, DEPTH> turns{source, shared.rooms[thread() / LANES].pairs, begin + thread() / LANES * KEYS, end};
    turns.first(false, row.position);
    wait();
    const float *numbers = step.qkv + (size_t)index * shape.width, *turn = step.angles + (size_t)row.angles * HD;
    shared.take(numbers + (size_t)head * HD, turn, heads);
    if (step.stores && row.position >= begin && row.position < end) {
        const float *key = numbers + (size_t)(shape.heads + kv_head) * HD;
        store<HD>(source, row.position, key, key + (size_t)shape.kv_heads * HD, turn);
    }
    group_together<THREADS>();
    turns.first(true, row.position);
    Warp<T, HD> warp;
    warp.begin(shared.queries);
    turns.attend(warp);
    shared.put(warp);
    group_together<THREADS>();
    Out *out = step.out + ((size_t)index * shape.heads + head) * HD;
    if (count == 1) {
        auto number = [&](uint32_t q, uint32_t i, float mixed, float all) { out[q * HD + i] = narrow<Out>(mixed / all); };
        shared.join(heads, number, [](uint32_t, float, float) {});
        // What has been joined may be written again.
        return group_together<THREADS>();
    }
    // To `parts` from one query to the next: mixed values, largest score, sum of weights.
    float *to = step.parts + ((size_t)of_row * shape.heads + head) * step.most * (HD + 2);
    const uint32_t apart = step.most * (HD + 2);
    shared.join(
        heads, [&](uint32_t q, uint32_t i, float mixed, float) { to[q * apart + n * (HD + 2) + i] = mixed; },
        [&](uint32_t q, float largest, float all) {
            float *two = to + q * apart + n * (HD + 2) + HD;
            two[0] = largest, two[1] = all;
        });
    if (!shared.is_last(of_row * step.groups() + group, count)) return;
    for (uint32_t q = thread() / LANES; q < heads; q += WARPS) {
        shared.join_parts(to + (size_t)q * apart, count, out + (size_t)q * HD);
    }
}

} // namespace single
