// Chosen rows of a table in 32 or 16 bits, in f32. One block a row.
#include "early.cuh"
#include "element.cuh"

template <typename T>
__device__ void gather(const T *table, const uint32_t *ids, float *out, uint32_t width) {
    in_turn();
    const T *row = table + (size_t)ids[blockIdx.x] * width;
    out += (size_t)blockIdx.x * width;
    for (uint32_t i = threadIdx.x; i < width; i += blockDim.x) out[i] = widen(row[i]);
}

#define GATHER(name, T)                                                                                               \
    extern "C" __global__ void gather_##name(const T *table, const uint32_t *ids, float *out, uint32_t width) {       \
        gather(table, ids, out, width);                                                                               \
    }
GATHER(f32, float)
GATHER(f16, __half)
GATHER(bf16, __nv_bfloat16)
