// All layers of a decoder for up to eight single rows, in one kernel: blocks that are all there at the same time, one a
// multiprocessor, do one product or attention after the other together. Some warps of a block send weights all the time, as far
// ahead as there is room (ring.cuh); so the memory has work while the others wait for other blocks: between kernels it has
// none, for as long as the last block of one and the first read of the next take.
#pragma once
#include "single.cuh"
#include "streamed.cuh"
#include "streamed_quantised.cuh"
#include "together.cuh"

namespace decoder {

using ring::Ring;
using streamed::Room;

// Weights in 16 bits, and what is between their products.
template <typename T> struct Dense {
    using Weight = T;
    using Number = T;
    using Given = streamed::Given<T>;
    using Normed = streamed::Normed<T>;
    static constexpr uint32_t STAGE = streamed::STAGE<T>;

    template <int WHAT> static __device__ __forceinline__ void send(const T *w, const few::Sizes &of, Ring &ring) {
        streamed::send<WHAT>(w, of, ring);
    }
    template <int WHAT, typename Source>
    static __device__ __forceinline__ void products(const Source &x, const float *bias, void *y, const few::Sizes &of,
                                                    const Room &room, Ring &ring) {
        streamed::products<WHAT, T>(x, bias, y, of, room, ring);
    }
};

// Quantised weights.
template <typename F> struct Quantised {
    using Weight = uint8_t;
    using Number = float;
    using Given = streamed_quantised::Given;
    using Normed = streamed_quantised::Normed;
    static constexpr uint32_t STAGE = streamed_quantised::STAGE<F>;

    template <int WHAT> static __device__ __forceinline__ void send(const uint8_t *w, const few::Sizes &of, Ring &ring) {
        streamed_quantised::send<F, WHAT>(w, {of.inner, of.outer, of.rows, of.phase}, ring);
    }
    template <int WHAT, typename Source>
    static __device__ __forceinline__ void products(const Source &x, const float *bias, void *y, const few::Sizes &of,
                                                    const Room &room, Ring &ring) {
        const few_quantised::Sizes sizes{of.inner, of.outer, of.rows, of.phase};
        streamed_quantised::products<F, WHAT>(x, bias, (float *)y, sizes, room, ring);
    }
};

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

template <typename Linear, typename T, int HD> struct Decoder {
    using Weight = typename Linear::Weight;
    using Number = typename Linear::Number;
    using Step = single::Step<T, Number>;
    const Sizes &of;
    const Rooms<Number> &rooms;
    const Room &room;
    Ring &ring;
    Grid<ring::CONSUMERS> grid;

    // Sizes of the products of a layer.
    __device__ __forceinline__ few::Sizes qkv() const {
        return {of.width, (of.heads + 2 * of.kv_heads) * HD, of.rows, of.phases[0]};
    }
    __device__ __forceinline__ few::Sizes out() const { return {of.heads * HD, of.width, of.rows, of.phases[1]}; }
    __device__ __forceinline__ few::Sizes gate_up() const { return {of.width, of.inner, of.rows, of.phases[0]}; }
    __device__ __forceinline__ few::Sizes down() const { return {of.inner, of.width, of.rows, of.phases[2]}; }

    __device__ __forceinline__ void send(const Layer<Linear, T> &layer) const {
        Linear::template send<PLAIN>(layer.qkv, qkv(), ring);
        Linear::template send<ADDED>(layer.out, out(), ring);
        Linear::template send<GATED>(layer.gate_up, gate_up(), ring);
        Linear::template send<ADDED>(layer.down, down(), ring);
    }

    // Attention of all rows, of which each group of threads has its share, where sums and rows of products are else.
    __device__ __forceinline__ void attend(const Step &step) {
        constexpr uint32_t GROUPS = ring::CONSUMERS / single::THREADS;
        const uint32_t own = threadIdx.x / single::THREADS;
        auto &shared = reinterpret_cast<single::Shared<T, HD, 1> *>(room.sums)[own];
        // Those are read no longer.
        ring::consumers_together();
        single::attend<HD, 1>(step, blockIdx.x + own * gridDim.x, gridDim.x * GROUPS, shared, [&] { grid.together(); });
    }

    template <int WHAT, typename Source>
    __device__ __forceinline__ void products(const Source &x, const float *bias, void *y, const few::Sizes &sizes) {
        grid.together();
        Linear::template products<WHAT>(x, bias, y, sizes, room, ring);
    }

    __device__ __forceinline__ void layer(const Layer<Linear, T> &layer, Step &step) {
        const typename Linear::Normed before{{rooms.stream, layer.input_norm, of.eps}};
        const typename Linear::Normed behind{{rooms.stream, layer.post_norm, of.eps}};
        products<PLAIN>(before, layer.qkv_bias, rooms.qkv, qkv());
        step.cache = layer.cache;
        attend(step);
        products<ADDED>(typename Linear::Given{rooms.mixed}, nullptr, rooms.stream, out());
        products<GATED>(behind, nullptr, rooms.gated, gate_up());
        products<ADDED>(typename Linear::Given{rooms.gated}, nullptr, rooms.stream, down());
    }
};

} // namespace decoder

// A kernel for weights in `LINEAR`, a cache of T and heads of HD numbers. Shared memory begins with barriers and sums; rows of
// products are at byte `rows_at` of it, and so many stages of the ring at byte `stages_at`.
#define DECODER(name, LINEAR, T, HD)                                                                                  \
    extern "C" __global__ void __launch_bounds__(ring::THREADS, 1) name(                                              \
        const decoder::Layer<LINEAR, T> *model, uint32_t layers, uint32_t count, uint32_t width, uint32_t heads,      \
        uint32_t kv_heads, uint32_t inner, uint32_t phase_width, uint32_t phase_mixed, uint32_t phase_inner,          \
        uint32_t rows_at, uint32_t stages_at, uint32_t stages, float eps, STRIDES, const uint32_t *tables,            \
        const Row *rows, const uint32_t *which, const float *angles, float *stream, float *qkv, float *parts,         \
        LINEAR::Number *mixed, LINEAR::Number *gated, uint32_t *arrived) {                                            \
        extern __shared__ uint4 shared[];                                                                             \
        uint8_t *memory = reinterpret_cast<uint8_t *>(shared);                                                        \
        float *sums = reinterpret_cast<float *>(memory + ring::BARRIERS);                                             \
        const decoder::Sizes of{count, width, heads, kv_heads, inner, {phase_width, phase_mixed, phase_inner}, eps};  \
        const decoder::Rooms<LINEAR::Number> rooms{stream, qkv, mixed, gated};                                        \
        const decoder::Room room{sums, sums + 2 * ring::WARPS * few::SUMS, memory + rows_at};                         \
        ring::Ring ring(memory, memory + stages_at, stages, LINEAR::STAGE);                                           \
        ring.begin();                                                                                                 \
        decoder::Decoder<LINEAR, T, HD> all{of, rooms, room, ring, {arrived}};                                        \
        if (threadIdx.x >= ring::CONSUMERS) {                                                                         \
            for (uint32_t n = 0; n < layers; n++) all.send(model[n]);                                                 \
            return ring::all_sent();                                                                                  \
        }                                                                                                             \
        single::Step<T, LINEAR::Number> step{nullptr, {block, value, head, token, block_tokens}, tables, rows, which, \
                                             count, qkv, angles, parts, mixed,                                        \
                                             {(heads + 2 * kv_heads) * HD, heads, kv_heads, HD}, true};               \
        for (uint32_t n = 0; n < layers; n++) all.layer(model[n], step);                                              \
        all.grid.leave();                                                                                             \
    }
