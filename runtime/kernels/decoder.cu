// All layers of a decoder for up to eight single rows in 16 bits, in one kernel: blocks that are all there at the same time, one a
// multiprocessor, do one product or attention after the other together. What a block reads next it asks for before it waits for the
// others, so that the memory is never without work: between kernels it is, for as long as the last block of one and the
// first read of the next take.
#include "early.cuh"
#include "few.cuh"
#include "single.cuh"
#include "together.cuh"

namespace {

// Weights and cache of one layer, and where they are in the memory of all.
template <typename T> struct Layer {
    const float *input_norm;
    const T *qkv;
    const float *qkv_bias; // or none
    T *cache;
    const T *out;
    const float *post_norm;
    const T *gate_up, *down;
};

struct Sizes {
    uint32_t layers, rows;
    uint32_t width, heads, kv_heads, inner; // of the stream, of attention, and of what is gated
    uint32_t phases[3];                     // numbers of those three that are in shared memory at a time
    float eps;
};

// What steps leave each other.
template <typename T> struct Rooms {
    float *stream, *qkv;
    T *mixed, *gated;
};

template <typename T, int HD> struct Decoder {
    const Sizes &of;
    const Rooms<T> &rooms;
    uint4 *shared;
    Grid &grid;

    // Each step has the registers to itself.
    template <int WHAT, typename Source>
    __device__ __noinline__ void products(const T *w, const Source &x, const float *bias, void *y, uint32_t inner,
                                             uint32_t outer, uint32_t phase) const {
        few::products<WHAT>(w, x, bias, y, {inner, outer, of.rows, phase}, shared, [this] { grid.together(); });
    }

    // Every fourth of a block has a part of its own.
    __device__ __noinline__ void attend(const single::Step<T, T> &step) const {
        constexpr uint32_t GROUPS = few::THREADS / single::THREADS;
        auto *own = reinterpret_cast<single::Shared<T, HD> *>(shared) + threadIdx.x / single::THREADS;
        const uint32_t groups = step.groups(), all = step.most * groups * of.rows;
        bool waited = false;
        auto wait = [&] {
            if (!waited) grid.together();
            waited = true;
        };
        for (uint32_t n = blockIdx.x + threadIdx.x / single::THREADS * gridDim.x; n < all; n += gridDim.x * GROUPS) {
            uint32_t row = n / step.most / groups;
            single::part<HD>(step, n % step.most, n / step.most % groups, row, *own, wait);
        }
        wait();
    }

    __device__ __forceinline__ void layer(const Layer<T> &layer, single::Step<T, T> &step) const {
        const uint32_t mixed = of.heads * HD, qkv = mixed + 2 * of.kv_heads * HD;
        products<few::PLAIN>(layer.qkv, few::Normed<T>{rooms.stream, layer.input_norm, of.eps}, layer.qkv_bias, rooms.qkv,
                             of.width, qkv, of.phases[0]);
        step.cache = layer.cache;
        attend(step);
        products<few::ADDED>(layer.out, few::Given<T>{rooms.mixed}, nullptr, rooms.stream, mixed, of.width, of.phases[1]);
        products<few::GATED>(layer.gate_up, few::Normed<T>{rooms.stream, layer.post_norm, of.eps}, nullptr, rooms.gated,
                             of.width, of.inner, of.phases[0]);
        products<few::ADDED>(layer.down, few::Given<T>{rooms.gated}, nullptr, rooms.stream, of.inner, of.width,
                             of.phases[2]);
    }
};

} // namespace

#define DECODER(name, T, HD)                                                                                          \
    extern "C" __global__ void __launch_bounds__(few::THREADS, 1) decoder_##name##_##HD(                              \
        const Layer<T> *model, uint32_t layers, uint32_t count, uint32_t width, uint32_t heads, uint32_t kv_heads,    \
        uint32_t inner, uint32_t phase_width, uint32_t phase_mixed, uint32_t phase_inner, float eps, STRIDES,         \
        const uint32_t *tables, const Row *rows, const uint32_t *which, const float *angles, float *stream,           \
        float *qkv, float *parts, T *mixed, T *gated, uint32_t most, uint64_t *arrived) {                             \
        extern __shared__ uint4 shared[];                                                                             \
        const Sizes of{layers, count, width, heads, kv_heads, inner, {phase_width, phase_mixed, phase_inner}, eps};   \
        const Rooms<T> rooms{stream, qkv, mixed, gated};                                                              \
        Grid grid(arrived);                                                                                           \
        const Decoder<T, HD> decoder{of, rooms, shared, grid};                                                        \
        single::Step<T, T> step{nullptr, {block, value, head, token, block_tokens}, tables, rows, which, qkv, angles, \
                                parts,   mixed, {(heads + 2 * kv_heads) * HD, heads, kv_heads, HD}, most, true};      \
        for (uint32_t n = 0; n < layers; n++) decoder.layer(model[n], step);                                          \
    }
#define WIDTHS(name, T)                                                                                               \
    DECODER(name, T, 64)                                                                                              \
    DECODER(name, T, 96)                                                                                              \
    DECODER(name, T, 128)
WIDTHS(f16, __half)
WIDTHS(bf16, __nv_bfloat16)
