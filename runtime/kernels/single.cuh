// Attention of one row of a sequence. A block of four warps, or four of its warps, are a worker, which has its share of all keys
// (shares.cuh), 16 for each warp of a tile. Keys and values come to shared memory that the warp alone writes and reads, DEPTH
// times of them ahead of what is used and on to the next heads and rows, so that the memory is never without work. What a worker
// has seen alone it writes; of several the last joins what they have mixed.
#pragma once
#include "instructions.cuh"
#include "shares.cuh"

namespace single {

// Workers that are done with their part of a group of heads of a row. The last of them joins the parts and begins anew.
constexpr uint32_t MOST_GROUPS = 1 << 16;
__device__ uint32_t done[MOST_GROUPS];

// The parts of a group of heads of a row: the first worker's is the second that it has, since it may end another group before; all
// others' are their first.
template <int HD> struct Parts {
    float *all;
    uint32_t first, count; // of the workers

    template <typename Step> __device__ __forceinline__ Parts(const Step &step, const Share &share, uint32_t begin, uint32_t tiles)
        : all(step.parts), first(begin / share.each), count((begin + tiles - 1) / share.each - first + 1) {}
    // Mixed values of a query, its largest score and the sum of weights.
    __device__ __forceinline__ float *at(uint32_t n, uint32_t query) const {
        return all + (((size_t)(first + n) * 2 + (n == 0)) * QUERIES + query) * (HD + 2);
    }
};

// What a warp has: keys and their values, and behind the last of a group what it has mixed.
template <typename S, int HD> union Slot {
    Sixteen<S, HD> both[2];
    float out[QUERIES][HD + 4];
};

// What a worker shares: its queries, and the sums of its warps.
template <typename S, int HD, int DEPTH> struct Shared {
    using T = typename Kept<S>::Number;
    static_assert(HD <= THREADS, "a thread joins one number of a head");
    alignas(16) Slot<S, HD> slots[WARPS][DEPTH];
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

    __device__ __forceinline__ void put(Warp<S, HD> &warp, int slot) {
        uint32_t lane = thread() % 32, own = thread() / 32, query = lane % 4 * 2;
        auto &out = slots[own][slot].out;
#pragma unroll
        for (int q = 0; q < 2; q++) {
#pragma unroll
            for (int distance = 4; distance < 32; distance *= 2) {
                warp.sum[q] += __shfl_xor_sync(~0u, warp.sum[q], distance);
            }
            if (lane < 4) highest[own][query + q] = warp.highest[q], sum[own][query + q] = warp.sum[q];
#pragma unroll
            for (int i = 0; i < HD / 16; i++) {
                out[query + q][Warp<S, HD>::column(i, 0)] = warp.out[i][q];
                out[query + q][Warp<S, HD>::column(i, 1)] = warp.out[i][2 + q];
            }
        }
    }

    // Joins the warps, a thread a number: `number` gets each mixed value of a query with its place and the sum of weights, and
    // `sums` the largest score and that sum. A warp that had no keys has a sum of zero and says nothing.
    template <typename Number, typename Sums>
    __device__ __forceinline__ void join(int slot, uint32_t heads, const Number &number, const Sums &sums) const {
        const uint32_t i = thread();
        for (uint32_t q = 0; q < heads; q++) {
            float largest = -INFINITY, all = 0.f, mixed = 0.f;
#pragma unroll
            for (int w = 0; w < WARPS; w++) largest = fmaxf(largest, highest[w][q]);
#pragma unroll
            for (int w = 0; w < WARPS; w++) {
                float scale = sum[w][q] == 0.f ? 0.f : power(highest[w][q] - largest);
                all += scale * sum[w][q];
                if (i < HD) mixed += scale * slots[w][slot].out[q][i];
            }
            if (i < HD) number(q, i, mixed, all);
            if (i == 0) sums(q, largest, all);
        }
    }

    // Whether this worker is the last of `parts` that is done, whose parts are then all there for reads that pass by the cache of a
    // multiprocessor. Behind a barrier.
    __device__ __forceinline__ bool is_last(uint32_t group, uint32_t parts) {
        if (thread() == 0) {
            last = counted(done + group) + 1 == parts;
            if (last) done[group] = 0;
        }
        group_together<THREADS>();
        return last;
    }

    // Joins the parts of a query of which there are `count`, by a warp.
    template <typename Out>
    __device__ __forceinline__ void join_parts(const Parts<HD> &parts, uint32_t query, Out *to) {
        const uint32_t lane = thread() % 32, count = parts.count;
        float *scale = scales[thread() / 32], high[MOST_PARTS / 32], largest = -INFINITY, all = 0.f;
#pragma unroll
        for (int n = 0; n < MOST_PARTS / 32; n++) {
            uint32_t s = n * 32 + lane;
            high[n] = s < count ? __ldcg(parts.at(s, query) + HD) : -INFINITY;
            largest = fmaxf(largest, high[n]);
        }
        largest = warp_max(largest);
#pragma unroll
        for (int n = 0; n < MOST_PARTS / 32; n++) {
            uint32_t s = n * 32 + lane;
            float own = s < count ? power(high[n] - largest) : 0.f;
            if (s < count) all += own * __ldcg(parts.at(s, query) + HD + 1);
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
                float2 pair = __ldcg(reinterpret_cast<const float2 *>(parts.at(s, query) + i));
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

// Keys and values of a worker's tiles on their way to a warp.
template <typename T, int HD, int DEPTH> struct Stream {
    Slot<T, HD> (&slots)[DEPTH];
    Walk walk;
    uint32_t block = 0; // of the cache, in which the next keys are
    int slot = 0;       // where they are sent to: the one that was, or is, used

    template <typename Step> __device__ __forceinline__ Stream(const Step &step, Slot<T, HD> (&slots)[DEPTH], const Walk &walk)
        : slots(slots), walk(walk) {
        look(step);
    }
    // Where the next keys are, long before that is used.
    template <typename Step> __device__ __forceinline__ void look(const Step &step) {
        if (walk.left > 0 && walk.visible() > 0) block = step.tables[walk.row.table + (walk.position() >> step.at.shift())];
    }
    // Sends the next keys and values, if there are any, in a batch of their own. Rows behind the last are not read: others stand in
    // for them, and count for nothing.
    template <typename Step> __device__ __forceinline__ void send(const Step &step) {
        const int visible = walk.visible();
        if (walk.left > 0 && visible > 0) {
            const uint32_t kv_head = step.kv_head(walk.group), token = walk.position() & (step.at.block_tokens - 1);
            if (step.stores && walk.has_newest()) store(step, kv_head);
            const T *head = step.cache + block * step.at.block + (uint64_t)kv_head * step.at.head;
            const T *from = head + (uint64_t)token * step.at.token, *scales = head + step.at.block_tokens * step.at.token;
            auto &both = slots[slot].both;
#pragma unroll
            for (int n = 0; n < 2; n++) {
                const uint64_t which = n * step.at.value;
                both[n].send(from + which, step.at.token, reinterpret_cast<const float *>(scales + which) + token, visible);
            }
        }
        sent();
        slot = slot + 1 == DEPTH ? 0 : slot + 1;
        if (walk.left == 0) return;
        walk.pass(step, 1);
        look(step);
    }
    // The key of this step's token, turned, and its value to their places in the cache.
    template <typename Step> __device__ __forceinline__ void store(const Step &step, uint32_t kv_head) const {
        const Row &row = walk.row;
        const auto to = cached(step.cache, step.tables, row, step.at, kv_head);
        const float *of_row = step.qkv + (size_t)step.singles[walk.of_row] * step.shape.width;
        const float *key = of_row + (size_t)(step.shape.heads + kv_head) * HD;
        const float *value = key + (size_t)step.shape.kv_heads * HD, *angles = step.angles + (size_t)row.angles * HD;
        if constexpr (Kept<T>::SCALED) {
            keep_token(to, row.position, HD, key, value, angles, 0);
            keep_token(to, row.position, HD, key, value, angles, 1);
        } else {
            T *numbers = const_cast<T *>(to.key(row.position));
            for (uint32_t i = thread() % LANES; i < HD; i += LANES) {
                numbers[i] = narrow<T>(rotated(key, angles, HD, i));
                numbers[step.at.value + i] = narrow<T>(value[i]);
            }
        }
        __syncwarp();
    }
};

// One worker's share of attention of all single rows.
template <typename T, typename Out, int HD, int DEPTH> struct Worker {
    const Step<T, Out> &step;
    const Share share;
    Shared<T, HD, DEPTH> &shared;
    Walk walk;
    Stream<T, HD, DEPTH> stream;

    __device__ __forceinline__ Worker(const Step<T, Out> &step, uint32_t worker, uint32_t workers, Shared<T, HD, DEPTH> &shared)
        : step(step), share(step, worker, workers), shared(shared), walk(step, share),
          stream(step, shared.slots[thread() / LANES], walk) {}

    // The queries of the next tiles' group.
    __device__ __forceinline__ void take() {
        if (walk.left == 0) return;
        const float *of_row = step.qkv + (size_t)step.singles[walk.of_row] * step.shape.width;
        const float *turn = step.angles + (size_t)walk.row.angles * HD;
        shared.take(of_row + (size_t)step.first(walk.group) * HD, turn, step.heads(walk.group));
    }
    // The next `count` tiles, of one group, but for what is sent when the slot of the last is used no longer.
    __device__ __forceinline__ void mix(uint32_t count) {
        Warp<T, HD> warp;
        warp.begin(shared.queries);
        int visible = walk.visible();
        for (uint32_t n = 0; n < count; n++, visible -= PART) {
            if (n > 0) stream.send(step);
            arrived<DEPTH - 1>();
            if (visible <= 0) continue;
            // All that the warp has sent, and behind it all that it has read.
            __syncwarp();
            const auto &both = shared.slots[thread() / LANES][stream.slot].both;
            float scores[4];
            warp.score(both[0], visible, scores);
            warp.weigh(scores, both[1]);
            warp.add(both[1], scores);
            __syncwarp();
        }
        shared.put(warp, stream.slot);
        group_together<THREADS>();
    }

    // The worker's next tiles, as far as they are of one group.
    __device__ __forceinline__ void group() {
        const Walk of = walk;
        const uint32_t count = min(of.tiles - of.tile, of.left), begin = share.begin + share.left - of.left;
        mix(count);
        const Parts<HD> parts(step, share, begin - of.tile, of.tiles);
        const uint32_t heads = step.heads(of.group);
        Out *out = step.out + ((size_t)step.singles[of.of_row] * step.shape.heads + step.first(of.group)) * HD;
        if (parts.count == 1) {
            auto number = [&](uint32_t q, uint32_t i, float mixed, float all) { out[q * HD + i] = narrow<Out>(mixed / all); };
            shared.join(stream.slot, heads, number, [](uint32_t, float, float) {});
        } else {
            const uint32_t own = begin / share.each - parts.first;
            shared.join(
                stream.slot, heads, [&](uint32_t q, uint32_t i, float mixed, float) { parts.at(own, q)[i] = mixed; },
                [&](uint32_t q, float largest, float all) { parts.at(own, q)[HD] = largest, parts.at(own, q)[HD + 1] = all; });
        }
        walk.pass(step, count);
        take();
        group_together<THREADS>();
        stream.send(step);
        if (parts.count == 1 || !shared.is_last(of.of_row * step.groups() + of.group, parts.count)) return;
        for (uint32_t q = thread() / LANES; q < heads; q += WARPS) shared.join_parts(parts, q, out + (size_t)q * HD);
    }
};

// Calls `wait`, once by each thread, before it reads or writes what others do.
template <int HD, int DEPTH, typename T, typename Out, typename Wait>
__device__ __forceinline__ void attend(const Step<T, Out> &step, uint32_t worker, uint32_t workers, Shared<T, HD, DEPTH> &shared,
                                       const Wait &wait) {
    Worker<T, Out, HD, DEPTH> own(step, worker, workers, shared);
    // As far as they are in the cache already.
    int ahead = 0;
    for (; ahead < DEPTH && !own.stream.walk.has_newest(); ahead++) own.stream.send(step);
    wait();
    for (; ahead < DEPTH; ahead++) own.stream.send(step);
    own.take();
    group_together<THREADS>();
    while (own.walk.left > 0) own.group();
    // Whoever comes next may send to what this has used.
    arrived<0>();
}

} // namespace single
