// Where the cached keys and values of a sequence are: it has a table of the blocks that hold them.
#pragma once
#include "eight_bits.cuh"
#include "element.cuh"
#include "rotate.cuh"

// Strides in numbers, scales included.
struct Strides {
    uint64_t block;        // from one block to the next
    uint64_t value;        // from a key to its value
    uint32_t head;         // from one kv head to the next
    uint32_t token;        // from one token to the next
    uint32_t block_tokens; // tokens in a block

    // A block has a power of two of tokens.
    __device__ __forceinline__ uint32_t shift() const { return 31u - __clz(block_tokens); }
};

#define STRIDES uint64_t block, uint64_t value, uint32_t head, uint32_t token, uint32_t block_tokens

// What attention is of.
struct Shape {
    uint32_t width;    // numbers of a row of qkv
    uint32_t heads;    // query heads
    uint32_t kv_heads;
    uint32_t head_dim;
};

// A row of a step.
struct Row {
    uint32_t table;    // where the table of its sequence begins
    uint32_t position; // in its sequence
    uint32_t angles;   // its row of the table of angles
};

// Keys and values of one kv head of one sequence. In 8 bits each head of a block has the scales of its tokens behind their
// numbers.
template <typename T> struct Cached {
    using Element = T;
    const T *cache;
    const uint32_t *table;
    Strides at;
    uint32_t shift;

    __device__ __forceinline__ uint64_t offset(uint32_t position) const {
        return table[position >> shift] * at.block + (uint64_t)(position & (at.block_tokens - 1)) * at.token;
    }
    __device__ __forceinline__ const T *key(uint32_t position) const { return cache + offset(position); }
    __device__ __forceinline__ const T *value(uint32_t position) const { return key(position) + at.value; }
    // Where the scale of the numbers is that are `which` behind those of the key at a position: 0, or `at.value`.
    __device__ __forceinline__ const float *scale(uint32_t position, uint64_t which) const {
        const T *head = cache + table[position >> shift] * at.block + which;
        return reinterpret_cast<const float *>(head + at.block_tokens * at.token) + (position & (at.block_tokens - 1));
    }
    // The scale itself, or 1.
    __device__ __forceinline__ float times(uint32_t position, uint64_t which) const {
        if constexpr (Kept<T>::SCALED) return __ldcg(scale(position, which));
        return 1.f;
    }
};

template <typename T>
__device__ __forceinline__ Cached<T> cached(const T *cache, const uint32_t *tables, Row row, Strides at,
                                            uint32_t kv_head) {
    return {cache + (uint64_t)kv_head * at.head, tables + row.table, at, at.shift()};
}

// The key, turned, and the value of a new token of one kv head, in 8 bits: of two warps, 0 has the key and 1 the value.
template <typename T>
__device__ __forceinline__ void keep_token(const Cached<T> &to, uint32_t position, uint32_t head_dim, const float *key,
                                           const float *value, const float *angles, uint32_t warp) {
    uint64_t which = warp == 0 ? 0 : to.at.value;
    T *numbers = const_cast<T *>(to.key(position)) + which;
    float *scale = const_cast<float *>(to.scale(position, which));
    if (warp == 0) {
        keep(numbers, scale, head_dim, [&](uint32_t i) { return rotated(key, angles, head_dim, i); });
    } else if (warp == 1) {
        keep(numbers, scale, head_dim, [&](uint32_t i) { return value[i]; });
    }
}
