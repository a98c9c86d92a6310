// How the keys of all single rows are shared out: workers, each of them four warps, have as many tiles of keys each, so that all
// are done at the same time however long which row is. Tiles are counted row by row, in each group by group of its heads, in
// each from the first key on.
#pragma once
#include "cache.cuh"
#include "columns.cuh"

namespace single {

constexpr int PART = WARPS * KEYS; // keys of a tile
constexpr int MOST_PARTS = 64;     // of the keys of a row that are joined

// What a step is computed with. Everything but qkv is there before its first kernel begins, and but the keys and values of its
// own rows where it `stores` those.
template <typename T, typename Out> struct Step {
    using Element = T;
    T *cache;
    Strides at;
    const uint32_t *tables;
    const Row *rows;
    const uint32_t *singles;
    uint32_t count; // of single rows
    const float *qkv, *angles;
    float *parts; // [workers, 2, queries, head dim + 2]: mixed values, largest score, sum of weights
    Out *out;
    Shape shape;
    bool stores;

    // Query heads of a kv head, and groups of them that are multiplied together, of a kv head and of all.
    __device__ __forceinline__ uint32_t of_kv_head() const { return shape.heads / shape.kv_heads; }
    __device__ __forceinline__ uint32_t groups_of_kv_head() const { return (of_kv_head() + QUERIES - 1) / QUERIES; }
    __device__ __forceinline__ uint32_t groups() const { return shape.kv_heads * groups_of_kv_head(); }
    // The kv head of a group, its first query head, and how many it has.
    __device__ __forceinline__ uint32_t kv_head(uint32_t group) const { return group / groups_of_kv_head(); }
    __device__ __forceinline__ uint32_t first(uint32_t group) const {
        return kv_head(group) * of_kv_head() + group % groups_of_kv_head() * QUERIES;
    }
    __device__ __forceinline__ uint32_t heads(uint32_t group) const {
        return min(of_kv_head() - group % groups_of_kv_head() * QUERIES, (uint32_t)QUERIES);
    }
    // Of the keys of a group of a single row.
    __device__ __forceinline__ uint32_t tiles(uint32_t of_row) const { return rows[singles[of_row]].position / PART + 1; }
};

// The tiles of a worker, and where they begin: in which row, and how many tiles behind its first.
struct Share {
    uint32_t each, begin, left, of_row = 0, behind = 0;

    template <typename Step> __device__ Share(const Step &step, uint32_t worker, uint32_t workers) {
        const uint32_t lane = thread() % LANES, groups = step.groups();
        uint32_t all = 0, longest = 0;
        for (uint32_t n = lane; n < step.count; n += LANES) {
            uint32_t tiles = step.tiles(n);
            all += tiles, longest = max(longest, tiles);
        }
#pragma unroll
        for (int distance = LANES / 2; distance > 0; distance /= 2) {
            all += __shfl_xor_sync(~0u, all, distance);
            longest = max(longest, __shfl_xor_sync(~0u, longest, distance));
        }
        all *= groups;
        // A row may begin and end in the middle of shares, and has no more parts than can be joined.
        each = max((all + workers - 1) / workers, (longest + MOST_PARTS - 3) / (MOST_PARTS - 2));
        begin = min(worker * each, all), left = min(each, all - begin);
        if (left > 0) find(step, groups);
    }

    // The row in which the first tile is: the last one of those that begin no later.
    template <typename Step> __device__ __forceinline__ void find(const Step &step, uint32_t groups) {
        const uint32_t lane = thread() % LANES;
        uint32_t before = 0;
        for (uint32_t first = 0; first < step.count; first += LANES) {
            uint32_t own = first + lane < step.count ? step.tiles(first + lane) * groups : 0, sum = own;
#pragma unroll
            for (int distance = 1; distance < LANES; distance *= 2) {
                uint32_t other = __shfl_up_sync(~0u, sum, distance);
                if (lane >= distance) sum += other;
            }
            uint32_t passed = __popc(__ballot_sync(~0u, before + sum <= begin));
            if (passed < LANES) {
                of_row = first + passed, behind = begin - before - __shfl_sync(~0u, sum - own, passed);
                return;
            }
            before += __shfl_sync(~0u, sum, LANES - 1);
        }
    }
};

// Tile after tile of a worker.
struct Walk {
    uint32_t left, of_row, group, tile, tiles; // tiles of a group of the row
    Row row;

    template <typename Step> __device__ __forceinline__ Walk(const Step &step, const Share &share) : left(share.left) {
        of_row = share.of_row, tile = share.behind, group = tiles = 0, row = {};
        if (left == 0) return;
        enter(step);
        group = tile / tiles, tile %= tiles;
    }
    template <typename Step> __device__ __forceinline__ void enter(const Step &step) {
        row = step.rows[step.singles[of_row]], tiles = row.position / PART + 1;
    }
    // Passes tiles of one group.
    template <typename Step> __device__ __forceinline__ void pass(const Step &step, uint32_t count) {
        left -= count, tile += count;
        if (tile < tiles) return;
        tile = 0;
        if (++group < step.groups()) return;
        group = 0, of_row++;
        if (left > 0) enter(step);
    }
    // Where the keys of this warp begin, and how many of them, and of those behind them, there are.
    __device__ __forceinline__ uint32_t position() const { return tile * PART + thread() / LANES * KEYS; }
    __device__ __forceinline__ int visible() const { return (int)(row.position + 1) - (int)position(); }
    // Whether the token of this step is among them.
    __device__ __forceinline__ bool has_newest() const { return left > 0 && visible() > 0 && visible() <= KEYS; }
};

} // namespace single
