// Whether numbers are finite.
#include "element.cuh"

// `found`, zero before, becomes 1 where a number is infinite or none.
extern "C" __global__ void find_not_finite(const float *x, uint32_t *found, size_t count) {
    size_t step = (size_t)gridDim.x * blockDim.x;
    bool is = false;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) {
        is |= (__float_as_uint(x[i]) & 0x7f800000u) == 0x7f800000u;
    }
    if (__any_sync(~0u, is) && threadIdx.x % 32 == 0) atomicOr(found, 1u);
}
