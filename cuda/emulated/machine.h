// A GPU on a processor, for tests of what kernels compute where there is none: every thread of a kernel is a fiber, which runs
// until it waits for others. Says nothing about speed, nor about what threads see of each other's memory without waiting: in
// which order they go on is drawn at random, so that a missing barrier shows, mostly.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <functional>
#include <random>
#include <ucontext.h>
#include <utility>
#include <vector>

#undef __forceinline__
#undef __noinline__
#undef __launch_bounds__
#define __forceinline__ inline
#define __noinline__
#define __launch_bounds__(...)

struct Index {
    unsigned x = 1, y = 1, z = 1;
};
inline Index threadIdx, blockIdx, blockDim, gridDim;

namespace machine {

constexpr size_t STACK = 64 << 10, SHARED = 256 << 10;
constexpr unsigned LANES = 32;
constexpr size_t MOST_ROUNDS = 1 << 20;

// Threads that wait for each other: how many have come, and how often all had.
struct Meeting {
    unsigned come = 0, times = 0;
};

struct Block {
    Index index;
    unsigned alive;
    Meeting meetings[16];
    std::vector<char> shared;
};

struct Warp {
    Meeting meeting;
    void *arguments[LANES];
};

// A barrier in shared memory: how many come each time, how many have not yet, and how often all had.
struct Barrier {
    uint16_t count, left;
    uint32_t times;

    void come() {
        if (--left == 0) left = count, times++;
    }
};

// Bytes on their way to shared memory, or zeros; or that those before are there, for a barrier.
struct Sent {
    void *to;
    const void *from;
    bool is;
    size_t bytes;
    Barrier *barrier = nullptr;

    void come() const {
        if (barrier) {
            barrier->come();
        } else if (is) {
            memcpy(to, from, bytes);
        } else {
            memset(to, 0, bytes);
        }
    }
};

struct Fiber {
    ucontext_t context;
    std::vector<char> stack;
    unsigned thread, block, warp;
    bool ended = false;
    const Meeting *waits = nullptr;
    unsigned since = 0;
    std::vector<std::vector<Sent>> sent = {{}}; // by batches, the last one open
};

inline std::vector<Fiber> fibers;
inline std::vector<Block> blocks;
inline std::vector<Warp> warps;
inline ucontext_t scheduler;
inline Fiber *now;
inline std::function<void()> kernel;
inline std::mt19937 chance(1);

inline void pause() { swapcontext(&now->context, &scheduler); }

// What some thread has sent comes, up to what a barrier waits for.
inline void progress() {
    auto &batch = fibers[chance() % fibers.size()].sent.front();
    auto last = std::find_if(batch.begin(), batch.end(), [](const Sent &one) { return one.barrier; });
    if (last == batch.end()) return;
    std::for_each(batch.begin(), ++last, [](const Sent &one) { one.come(); });
    batch.erase(batch.begin(), last);
}

// Until `count` have come; the last of them does `last` first.
inline void meet(Meeting &meeting, unsigned count, const std::function<void()> &last = [] {}) {
    if (++meeting.come == count) {
        last();
        meeting.come = 0, meeting.times++;
        return;
    }
    now->waits = &meeting, now->since = meeting.times;
    pause();
    now->waits = nullptr;
}

// What the threads of a warp do together, each with arguments of its own.
template <typename Arguments> void together(Arguments &own, const std::function<void(Arguments *(&)[LANES])> &work) {
    Warp &warp = warps[now->warp];
    warp.arguments[now->thread % LANES] = &own;
    meet(warp.meeting, LANES, [&] {
        Arguments *all[LANES];
        for (unsigned lane = 0; lane < LANES; lane++) all[lane] = static_cast<Arguments *>(warp.arguments[lane]);
        work(all);
    });
}

inline Block &block() { return blocks[now->block]; }
inline void *shared() { return block().shared.data(); }

inline void begin() {
    kernel();
    now->ended = true;
    // Who has ended is waited for no longer.
    Meeting &all = block().meetings[0];
    if (--block().alive == all.come && all.come > 0) all.come = 0, all.times++;
    pause();
}

inline void run(const std::vector<Index> &indices, unsigned threads) {
    fibers = std::vector<Fiber>(indices.size() * threads);
    warps.assign(fibers.size() / LANES, {});
    blocks.clear();
    for (const Index &index : indices) blocks.push_back({index, threads, {}, std::vector<char>(SHARED, char(0xbb))});
    for (unsigned n = 0; n < fibers.size(); n++) {
        Fiber &fiber = fibers[n];
        fiber.thread = n % threads, fiber.block = n / threads, fiber.warp = n / LANES;
        fiber.stack.resize(STACK);
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.data(), fiber.context.uc_stack.ss_size = STACK;
        fiber.context.uc_link = &scheduler;
        makecontext(&fiber.context, begin, 0);
    }
    size_t rounds = 0;
    for (size_t ended = 0; ended < fibers.size();) {
        bool ran = false;
        unsigned first = chance() % fibers.size();
        for (unsigned n = 0; n < fibers.size(); n++) {
            Fiber &fiber = fibers[(first + n) % fibers.size()];
            if (fiber.ended || (fiber.waits && fiber.waits->times == fiber.since)) continue;
            ran = true, now = &fiber;
            threadIdx.x = fiber.thread, threadIdx.y = threadIdx.z = 0, blockIdx = blocks[fiber.block].index;
            swapcontext(&scheduler, &fiber.context);
            ended += fiber.ended;
        }
        if (!ran || ++rounds == MOST_ROUNDS) {
            fprintf(stderr, "threads wait for what does not come\n");
            exit(1);
        }
    }
}

// Runs a kernel of whole warps: its blocks one after another, or all at the same time.
inline void launch(Index grid, unsigned threads, bool at_once, std::function<void()> what) {
    kernel = std::move(what), gridDim = grid, blockDim = {threads, 1, 1};
    std::vector<Index> indices;
    for (unsigned n = 0; n < grid.x * grid.y * grid.z; n++) {
        indices.push_back({n % grid.x, n / grid.x % grid.y, n / grid.x / grid.y});
        if (!at_once) run(indices, threads), indices.clear();
    }
    if (at_once) run(indices, threads);
}

// Memory at a multiple of what a GPU aligns.
struct Aligned {
    uint8_t *at;

    Aligned(size_t bytes, int filled) : at(static_cast<uint8_t *>(aligned_alloc(256, (bytes + 255) / 256 * 256))) {
        memset(at, filled, bytes);
    }
    Aligned(Aligned &&other) : at(std::exchange(other.at, nullptr)) {}
    ~Aligned() { free(at); }
};

} // namespace machine

inline void __syncthreads() { machine::meet(machine::block().meetings[0], machine::block().alive); }
inline void __threadfence() {}
inline void __syncwarp() {
    int none = 0;
    machine::together<int>(none, [](auto &) {});
}

template <typename T> struct Shuffled {
    T value, got;
};
template <typename T> T shuffled(T value, const std::function<unsigned(unsigned)> &from) {
    Shuffled<T> own{value, value};
    machine::together<Shuffled<T>>(own, [&](auto &all) {
        for (unsigned lane = 0; lane < machine::LANES; lane++) all[lane]->got = all[from(lane) % machine::LANES]->value;
    });
    return own.got;
}
template <typename T> T __shfl_xor_sync(unsigned, T value, unsigned distance) {
    return shuffled<T>(value, [=](unsigned lane) { return lane ^ distance; });
}
template <typename T> T __shfl_down_sync(unsigned, T value, unsigned distance) {
    return shuffled<T>(value, [=](unsigned lane) { return lane + distance < machine::LANES ? lane + distance : lane; });
}
template <typename T> T __shfl_up_sync(unsigned, T value, unsigned distance) {
    return shuffled<T>(value, [=](unsigned lane) { return lane >= distance ? lane - distance : lane; });
}
template <typename T> T __shfl_sync(unsigned, T value, unsigned from) {
    return shuffled<T>(value, [=](unsigned) { return from; });
}
inline unsigned __ballot_sync(unsigned, bool is) {
    struct Asked {
        bool is;
        unsigned which;
    } own{is, 0};
    machine::together<Asked>(own, [](auto &all) {
        unsigned which = 0;
        for (unsigned lane = 0; lane < machine::LANES; lane++) which |= unsigned(all[lane]->is) << lane;
        for (Asked *one : all) one->which = which;
    });
    return own.which;
}
inline bool __any_sync(unsigned all, bool is) { return __ballot_sync(all, is) != 0; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }

template <typename T> T __ldcg(const T *from) { return *from; }
template <typename T> T __ldg(const T *from) { return *from; }
template <typename T, typename U> T atomicAdd(T *to, U value) {
    T before = *to;
    *to += value;
    return before;
}
inline int __clz(unsigned x) { return x ? __builtin_clz(x) : 32; }
inline float __uint_as_float(uint32_t bits) {
    float number;
    memcpy(&number, &bits, sizeof number);
    return number;
}
inline uint32_t __float_as_uint(float number) {
    uint32_t bits;
    memcpy(&bits, &number, sizeof bits);
    return bits;
}
inline int __float2int_rn(float x) { return std::isnan(x) ? 0 : int(std::nearbyint(x)); }
inline uint32_t __byte_perm(uint32_t x, uint32_t y, uint32_t from) {
    uint64_t both = x | uint64_t(y) << 32, all = 0;
    for (int n = 0; n < 4; n++) all |= (both >> (from >> 4 * n & 7) * 8 & 255) << 8 * n;
    return uint32_t(all);
}
inline int __dp4a(int a, int b, int sum) {
    for (int n = 0; n < 4; n++) sum += int8_t(a >> 8 * n) * int8_t(b >> 8 * n);
    return sum;
}
inline int dp2a(int a, int b, int sum) { return sum + int16_t(a) * int8_t(b) + int16_t(a >> 16) * int8_t(b >> 8); }
inline int __dp2a_lo(int a, int b, int sum) { return dp2a(a, b, sum); }
inline int __dp2a_hi(int a, int b, int sum) { return dp2a(a, b >> 16, sum); }
using std::max;
using std::min;
