// Brings the blocks of GGUF to the order of formats.cuh, or back. One thread a word of 16 bits.
#include "formats.cuh"

template <typename F>
__device__ __forceinline__ void pack(uint16_t *blocks, uint8_t *packed, uint32_t row, size_t count, uint32_t back) {
    size_t n = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (n >= count) return;
    uint32_t word = n % F::WORDS, in_row = row / F::BLOCK;
    uint32_t output = n / F::WORDS / in_row, block = n / F::WORDS % in_row, b = block % (F::WIDTH / F::BLOCK);
    size_t at = packed::chunk_at<F>(output, block, row);
    if (word < F::HEAD) {
        at += F::head(output, b, word);
    } else {
        at += F::number(output, b, (word - F::HEAD) / 2) + (word - F::HEAD) % 2 * 2;
    }
    uint16_t *there = reinterpret_cast<uint16_t *>(packed + at);
    if (back) {
        blocks[n] = *there;
    } else {
        *there = blocks[n];
    }
}

#define PACK(name, F)                                                                                                 \
    extern "C" __global__ void pack_##name(uint16_t *blocks, uint8_t *packed, uint32_t row, size_t count,             \
                                           uint32_t back) {                                                           \
        pack<packed::F>(blocks, packed, row, count, back);                                                            \
    }
PACK(q8_0, Q8_0)
PACK(q4_0, Q4_0)
PACK(q4_k, Q4_K)
