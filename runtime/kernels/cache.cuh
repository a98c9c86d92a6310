// Where the cached keys and values of a sequence are: it has a table of the blocks that hold them.
#pragma once
#include "element.cuh"

// Strides in numbers.
struct Strides {
    uint64_t block;        // from one block to the next
    uint64_t value;        // from a key to its value
    uint32_t head;         // from one kv head to the next
    uint32_t token;        // from one token to the next
    uint32_t block_tokens; // tokens in a block
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

// Keys and values of one kv head of one sequence.
template <typename T> struct Cached {
    using Element = T;
    const T *cache;
    const uint32_t *table;
    Strides at;
    uint32_t shift; // A block has a power of two of tokens.

    __device__ __forceinline__ uint64_t offset(uint32_t position) const {
        return table[position >> shift] * at.block + (uint64_t)(position & (at.block_tokens - 1)) * at.token;
    }
    __device__ __forceinline__ const T *key(uint32_t position) const { return cache + offset(position); }
    __device__ __forceinline__ const T *value(uint32_t position) const { return key(position) + at.value; }
};

template <typename T>
__device__ __forceinline__ Cached<T> cached(const T *cache, const uint32_t *tables, Row row, Strides at,
                                            uint32_t kv_head) {
    return {cache + (uint64_t)kv_head * at.head, tables + row.table, at, 31u - __clz(at.block_tokens)};
}
