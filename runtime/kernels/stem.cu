// The first rows of a vision tower: the class token and the patches of each tile, with their positions.
#include "element.cuh"

// patches [tiles, rows − 1, width], positions [rows, width] to [tiles, rows, width].
extern "C" __global__ void stem(const float *patches, const float *class_token, const float *positions, float *out,
                                uint32_t rows, uint32_t width, size_t count) {
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    size_t tile = i / ((size_t)rows * width);
    uint32_t row = i / width % rows, column = i % width;
    float value = row == 0 ? class_token[column] : patches[(tile * (rows - 1) + row - 1) * width + column];
    out[i] = value + positions[(size_t)row * width + column];
}
