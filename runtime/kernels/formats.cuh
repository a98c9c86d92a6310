// Quantised weights as tensor cores take them: the blocks of GGUF in another order. Eight outputs follow each other as chunks of
// WIDTH numbers of each; a chunk is 16 bytes of numbers for each of 32 threads, NUMBERS times, and behind them 16 bytes of
// scales for each of four, HEADS times. Thread 4·g + t has the numbers from 4·t and from 16 + 4·t on of each group of 32 of output
// g, four each, and of the scales those of outputs 2·t and 2·t + 1. What is behind the last output or number is zero.
#pragma once
#include <cstddef>
#include <cstdint>

namespace packed {

// Which sums of a row's numbers a format needs beside the products: of each group, of 32 or of eight groups at a time.
enum Sums { NONE, OF_GROUPS, OF_EIGHT };

// BLOCK: numbers of a block of GGUF; WORDS: its 16-bit words, of which the first HEAD are its scales. SCALED: numbers of
// a row that share a scale in products.
struct Q8_0 {
    static constexpr int BLOCK = 32, WORDS = 17, HEAD = 1, WIDTH = 128, SCALED = 32, NUMBERS = 2, HEADS = 1;
    static constexpr Sums SUMS = NONE;
    // Where four bytes of numbers of block `b` of a chunk are, the `i`-th of an output.
    static __device__ __forceinline__ uint32_t number(uint32_t output, uint32_t b, uint32_t i) {
        return b / 2 * 512 + (output % 8 * 4 + i % 4) * 16 + (b % 2 * 2 + i / 4) * 4;
    }
    // Where a word of its scales is.
    static __device__ __forceinline__ uint32_t head(uint32_t output, uint32_t b, uint32_t) {
        return NUMBERS * 512 + output % 8 / 2 * 16 + b * 4 + output % 2 * 2;
    }
};
struct Q4_0 {
    static constexpr int BLOCK = 32, WORDS = 9, HEAD = 1, WIDTH = 128, SCALED = 32, NUMBERS = 1, HEADS = 1;
    static constexpr Sums SUMS = OF_GROUPS;
    static __device__ __forceinline__ uint32_t number(uint32_t output, uint32_t b, uint32_t i) {
        return (output % 8 * 4 + i) * 16 + b * 4;
    }
    static __device__ __forceinline__ uint32_t head(uint32_t output, uint32_t b, uint32_t) {
        return NUMBERS * 512 + output % 8 / 2 * 16 + b * 4 + output % 2 * 2;
    }
};
struct Q4_K {
    static constexpr int BLOCK = 256, WORDS = 72, HEAD = 8, WIDTH = 256, SCALED = 256, NUMBERS = 2, HEADS = 2;
    static constexpr Sums SUMS = OF_EIGHT;
    static __device__ __forceinline__ uint32_t number(uint32_t output, uint32_t, uint32_t i) {
        return i / 16 * 512 + (output % 8 * 4 + i % 4) * 16 + i % 16 / 4 * 4;
    }
    static __device__ __forceinline__ uint32_t head(uint32_t output, uint32_t, uint32_t n) {
        return NUMBERS * 512 + output % 8 * 16 + n * 2;
    }
};

template <typename F> constexpr uint32_t BYTES = F::NUMBERS * 512 + F::HEADS * 64;

// Where the chunk with a block of an output begins. `row`: numbers of each output.
template <typename F> __device__ __forceinline__ size_t chunk_at(uint32_t output, uint32_t block, uint32_t row) {
    uint32_t chunks = (row + F::WIDTH - 1) / F::WIDTH;
    return ((size_t)(output / 8) * chunks + block / (F::WIDTH / F::BLOCK)) * BYTES<F>;
}

} // namespace packed
