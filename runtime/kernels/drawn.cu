// Blocks of random numbers under scales that are the same in all: weights for measurements.
#include <cstddef>
#include <cstdint>

// The first `heads` of the `words` words of each block are those of `first` and `second`, four words each from the
// lowest on; word n of the others is the upper 16 bits of the n-th number of SplitMix64. One thread a word.
extern "C" __global__ void draw_blocks(uint16_t *blocks, uint32_t words, uint64_t first, uint64_t second, uint32_t heads,
                                       uint64_t seed, size_t count) {
    size_t n = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (n >= count) return;
    uint32_t at = n % words;
    if (at < heads) {
        blocks[n] = (uint16_t)((at < 4 ? first : second) >> (16 * (at % 4)));
        return;
    }
    uint64_t z = seed + (n + 1) * 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    blocks[n] = (uint16_t)((z ^ z >> 31) >> 48);
}
