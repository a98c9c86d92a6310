// All layers of a decoder for up to eight single rows, in one kernel: blocks that are all there at the same time, one a
// multiprocessor, do one product or attention after the other together. What a block reads next it asks for before it waits for the
// others, so that the memory is never without work: between kernels it is, for as long as the last block of one and the
// first read of the next take.
#pragma once
#include "few.cuh"
#include "few_quantised.cuh"
#include "single.cuh"
#include "together.cuh"

namespace decoder {

// Weights in 16 bits, and what is between their products.
template <typename T> struct Dense {
    using Weight = T;
    using Number = T;
    using Given = few::Given<T>;
    using Normed = few::Normed<T>;

    static __device__ __forceinline__ Given given(const Number *x) { return {x}; }

    template <int WHAT, typename Source, typename Wait>
    static __device__ __forceinline__ void products(const T *w, const Source &x, const float *bias, void *y,
                                                    const few::Sizes &of, const Wait &wait) {
        few::products<WHAT>(w, x, bias, y, of, wait);
    }
};

// Quantised weights.
template <typename F> struct Quantised {
    using Weight = uint8_t;
    using Number = float;
    using Given = few_quantised::Given;
    using Normed = few_quantised::Normed;

    static __device__ __forceinline__ Given given(const Number *x) { return {x, false}; }

    template <int WHAT, typename Source, typename Wait>
    static __device__ __forceinline__ void products(const uint8_t *w, const Source &x, const float *bias, void *y,
                                                    const few::Sizes &of, const Wait &wait) {
        few_quantised::products<F, 8, WHAT>(w, x, bias, (float *)y, {of.inner, of.outer, of.rows, of.phase}, wait);
    }
};

static_assert(few::THREADS == few_quantised::THREADS);

// Weights and cache of one layer, and where they are in the memory of all.
template <typename Linear, typename T> struct Layer {
    using Weight = typename Linear::Weight;
    const float *input_norm;
    const Weight *qkv;
    const float *qkv_bias; // or none
    T *cache;
    const Weight *out;
    const float *post_norm;
    const Weight *gate_up, *down;
};

struct Sizes {
    uint32_t rows, width, heads, kv_heads, inner; // of the stream, of attention, and of what is gated
    uint32_t phases[3]; // numbers of the stream, of what is mixed and gated that are in shared memory at a time
    float eps;
};

// What steps leave each other.
template <typename Number> struct Rooms {
    float *stream, *qkv;
    Number *mixed, *gated;
};

// Attention of all rows, of which every fourth of a block has a part of its own. Not a part of the kernel's own code: what it needs
// in registers would leave none for the weights that products have asked for.
template <int HD, typename Step>
__device__ __noinline__ void attend(const Step step, uint32_t rows, Grid grid) {
    extern __shared__ uint4 shared[];
    constexpr uint32_t GROUPS = few::THREADS / single::THREADS;
    auto *own = reinterpret_cast<single::Shared<typename Step::Element, HD> *>(shared) + threadIdx.x / single::THREADS;
    const uint32_t groups = step.groups(), all = step.most * groups * rows;
    bool waited = false;
    auto wait = [&] {
        if (!waited) grid.together();
        waited = true;
    };
    for (uint32_t n = blockIdx.x + threadIdx.x / single::THREADS * gridDim.x; n < all; n += gridDim.x * GROUPS) {
        single::part<HD>(step, n % step.most, n / step.most % groups, n / step.most / groups, *own, wait);
    }
    wait();
}

template <typename Linear, typename T, int HD> struct Decoder {
    using Weight = typename Linear::Weight;
    using Number = typename Linear::Number;
    using Step = single::Step<T, Number>;
    const Sizes &of;
    const Rooms<Number> &rooms;
    Grid &grid;

    template <int WHAT, typename Source>
    __device__ __forceinline__ void products(const Weight *w, const Source &x, const float *bias, void *y, uint32_t inner,
                                          uint32_t outer, uint32_t phase) const {
        Linear::template products<WHAT>(w, x, bias, y, {inner, outer, of.rows, phase}, [this] { grid.together(); });
    }

    __device__ __forceinline__ void layer(const Layer<Linear, T> &layer, Step &step) const {
        const uint32_t mixed = of.heads * HD, qkv = mixed + 2 * of.kv_heads * HD;
        const typename Linear::Normed before{{rooms.stream, layer.input_norm, of.eps}};
        const typename Linear::Normed behind{{rooms.stream, layer.post_norm, of.eps}};
        products<PLAIN>(layer.qkv, before, layer.qkv_bias, rooms.qkv, of.width, qkv, of.phases[0]);
        step.cache = layer.cache;
        attend<HD>(step, of.rows, grid);
        grid.passed();
        products<ADDED>(layer.out, Linear::given(rooms.mixed), nullptr, rooms.stream, mixed, of.width, of.phases[1]);
        products<GATED>(layer.gate_up, behind, nullptr, rooms.gated, of.width, of.inner, of.phases[0]);
        products<ADDED>(layer.down, Linear::given(rooms.gated), nullptr, rooms.stream, of.inner, of.width, of.phases[2]);
    }
};

} // namespace decoder

// A kernel for weights in `LINEAR`, a cache of T and heads of HD numbers.
#define DECODER(name, LINEAR, T, HD)                                                                                  \
    extern "C" __global__ void __launch_bounds__(few::THREADS, 1) name(                                               \
        const decoder::Layer<LINEAR, T> *model, uint32_t layers, uint32_t count, uint32_t width, uint32_t heads,      \
        uint32_t kv_heads, uint32_t inner, uint32_t phase_width, uint32_t phase_mixed, uint32_t phase_inner,          \
        float eps, STRIDES, const uint32_t *tables, const Row *rows, const uint32_t *which, const float *angles,      \
        float *stream, float *qkv, float *parts, LINEAR::Number *mixed, LINEAR::Number *gated, uint32_t most,         \
        uint32_t *arrived) {                                                                                          \
        const decoder::Sizes of{count, width, heads, kv_heads, inner, {phase_width, phase_mixed, phase_inner}, eps};  \
        const decoder::Rooms<LINEAR::Number> rooms{stream, qkv, mixed, gated};                                        \
        Grid grid{arrived};                                                                                           \
        const decoder::Decoder<LINEAR, T, HD> all{of, rooms, grid};                                                   \
        single::Step<T, LINEAR::Number> step{nullptr, {block, value, head, token, block_tokens}, tables, rows, which, \
                                             qkv, angles, parts, mixed,                                               \
                                             {(heads + 2 * kv_heads) * HD, heads, kv_heads, HD}, most, true};         \
        for (uint32_t n = 0; n < layers; n++) all.layer(model[n], step);                                              \
        grid.leave();                                                                                                 \
    }
