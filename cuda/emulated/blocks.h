// Blocks of GGUF, and what they say.
#pragma once
#include "machine.h"

namespace gguf {

using Bytes = std::vector<uint8_t>;

// A format of GGUF: numbers and bytes of a block, and numbers of a row that are rounded together.
struct Format {
    const char *name;
    size_t numbers, bytes, rounded, width, chunk;
    float (*number)(const uint8_t *block, size_t n);

    size_t row_bytes(size_t row) const { return row / numbers * bytes; }
    float weight(const Bytes &blocks, size_t output, size_t row, size_t k) const {
        return number(&blocks[output * row_bytes(row) + k / numbers * bytes], k % numbers);
    }
    // Bytes of `outputs` rows of `row` numbers as they are packed.
    size_t packed(size_t outputs, size_t row) const { return (outputs + 7) / 8 * ((row + width - 1) / width) * chunk; }
};

inline float half_at(const uint8_t *at) {
    __half number;
    memcpy(&number, at, sizeof number);
    return __half2float(number);
}

inline float q8_0(const uint8_t *block, size_t n) { return half_at(block) * int8_t(block[2 + n]); }
inline float q4_0(const uint8_t *block, size_t n) {
    uint8_t two = block[2 + n % 16];
    return half_at(block) * ((n < 16 ? two & 15 : two >> 4) - 8);
}
inline float q4_k(const uint8_t *block, size_t n) {
    const uint8_t *six = block + 4;
    size_t group = n / 32, scale = six[group % 4] & 63, minimum = six[group % 4 + 4] & 63;
    if (group >= 4) {
        scale = (six[group + 4] & 15) | six[group - 4] >> 6 << 4;
        minimum = six[group + 4] >> 4 | six[group] >> 6 << 4;
    }
    uint8_t two = block[16 + n / 64 * 32 + n % 32];
    return half_at(block) * scale * (group % 2 ? two >> 4 : two & 15) - half_at(block + 2) * minimum;
}

#define FORMAT(name, F)                                                                                               \
    gguf::Format {                                                                                                    \
        #name, packed::F::BLOCK, 2 * packed::F::WORDS, packed::F::SCALED, packed::F::WIDTH, packed::BYTES<packed::F>, \
            gguf::name                                                                                                \
    }

// Random blocks, with scales and scales of minima about as large as `scale`.
inline Bytes random(const Format &format, size_t outputs, size_t row, float scale, std::mt19937 &chance) {
    Bytes blocks(outputs * format.row_bytes(row));
    for (uint8_t &byte : blocks) byte = uint8_t(chance());
    for (size_t at = 0; at < blocks.size(); at += format.bytes) {
        for (size_t n = 0; n < (format.numbers == 256 ? 2 : 1); n++) {
            // The minima of Q4_K are half of what its numbers are at most.
            __half number = __float2half(scale * (1 + chance() % 100 * 1e-2f) * (n == 1 ? 7.5f : 1));
            memcpy(&blocks[at + 2 * n], &number, sizeof number);
        }
    }
    return blocks;
}

// A row as it is rounded (runtime/src/ops/linear/activations.rs).
inline std::vector<double> rounded(const Format &format, const float *x, size_t count) {
    std::vector<double> all(count);
    for (size_t n = 0; n < count; n += format.rounded) {
        float largest = 0;
        for (size_t i = n; i < n + format.rounded; i++) largest = std::max(largest, std::abs(x[i]));
        float scale = largest / 127, inverse = scale > 0 ? 1 / scale : 0;
        for (size_t i = n; i < n + format.rounded; i++) all[i] = double(scale) * std::nearbyint(x[i] * inverse);
    }
    return all;
}

} // namespace gguf
