// The next token of each row of logits: the first of the highest, or one drawn with the chances that a temperature and
// the likeliest k, their nucleus and a minimal share leave. One block a row. Weights are whole numbers, so that their
// sums do not depend on the order in which threads come to them.
#include "element.cuh"

// What is said of a row with a number that is infinite or none, and of one without numbers.
constexpr uint32_t NONE = ~0u;
constexpr uint32_t THREADS = 1024, WARPS = THREADS / 32, BINS = 2048, GROUP = 32;
// The weight of the highest.
constexpr double ONE = 1099511627776.0; // 2^40

struct Choice {
    float temperature, top_p, min_p;
    uint32_t top_k;
    uint32_t draw[2]; // a double
};

struct Best {
    float number;
    uint32_t at;

    __device__ __forceinline__ void take(Best other) {
        if (other.number > number || (other.number == number && other.at < at)) *this = other;
    }
};

__device__ __forceinline__ Best of_warp(Best best) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
        best.take({__shfl_xor_sync(~0u, best.number, distance), __shfl_xor_sync(~0u, best.at, distance)});
    }
    return best;
}

// Ordered as numbers are.
__device__ __forceinline__ uint32_t key(float number) {
    uint32_t bits = __float_as_uint(number + 0.f); // no negative zero
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

struct Weigh {
    double highest, temperature;

    __device__ __forceinline__ uint64_t of(float number) const {
        return (uint64_t)(exp(((double)number - highest) / temperature) * ONE);
    }
};

// Sum of what the threads before have, and of all.
template <typename T> __device__ T before(T value, T *of_warps, T *all) {
    uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    T sum = value;
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
        T other = __shfl_up_sync(~0u, sum, distance);
        if (lane >= distance) sum += other;
    }
    __syncthreads();
    if (lane == 31) of_warps[warp] = sum;
    __syncthreads();
    T first = 0, total = 0;
    for (uint32_t w = 0; w < WARPS; w++) {
        if (w < warp) first += of_warps[w];
        total += of_warps[w];
    }
    *all = total;
    return first + sum - value;
}

// The tokens that are left: those above a key, and the first `ties` with it.
struct Left {
    uint32_t key, ties;
};

struct Bins {
    uint32_t count[BINS];
    unsigned long long sum[BINS];
    // What was found: the bin, and what is above it.
    uint32_t bin, above_count;
    uint64_t above_sum;
};

// The fewest of the likeliest of `left` that are `count` or weigh `weight`, whichever is not zero; and what they weigh.
__device__ Left likeliest(const float *x, uint32_t width, Weigh weigh, Left left, uint32_t count, uint64_t weight,
                          Bins &bins, uint64_t *weighs) {
    uint32_t prefix = 0, mask = 0, above_count = 0;
    uint64_t above_sum = 0;
    for (int shift = 21; shift >= 0; shift = shift == 21 ? 10 : shift == 10 ? 0 : -1) {
        uint32_t size = shift == 0 ? 1024 : BINS;
        __syncthreads();
        for (uint32_t b = threadIdx.x; b < BINS; b += THREADS) bins.count[b] = 0, bins.sum[b] = 0;
        __syncthreads();
        for (uint32_t i = threadIdx.x; i < width; i += THREADS) {
            uint32_t k = key(x[i]);
            // Ties at the border are counted below.
            if ((k & mask) != prefix || k <= left.key) continue;
            uint32_t bin = k >> shift & (size - 1);
            atomicAdd(&bins.count[bin], 1u);
            atomicAdd(&bins.sum[bin], (unsigned long long)weigh.of(x[i]));
        }
        __syncthreads();
        if (threadIdx.x == 0 && left.ties > 0 && (left.key & mask) == prefix) {
            uint32_t bin = left.key >> shift & (size - 1);
            uint32_t bits = left.key & 0x80000000u ? left.key ^ 0x80000000u : ~left.key;
            bins.count[bin] += left.ties;
            bins.sum[bin] += left.ties * weigh.of(__uint_as_float(bits));
        }
        __syncthreads();
        // Whether so many, of that weight, are enough.
        auto enough = [=](uint32_t n, uint64_t w) { return count > 0 ? n >= count : w >= weight; };
        if (threadIdx.x < 32) {
            // Bins from the highest on, a group of them for each step of the warp.
            uint32_t n = above_count, found = NONE;
            uint64_t w = above_sum;
            for (uint32_t first = size; first > 0 && found == NONE; first -= GROUP) {
                uint32_t bin = first - 1 - threadIdx.x, own = bins.count[bin];
                uint64_t own_sum = bins.sum[bin];
                uint32_t up_to = own;
                uint64_t sum_up_to = own_sum;
#pragma unroll
                for (int distance = 1; distance < 32; distance *= 2) {
                    uint32_t other = __shfl_up_sync(~0u, up_to, distance);
                    uint64_t other_sum = __shfl_up_sync(~0u, sum_up_to, distance);
                    if (threadIdx.x >= distance) up_to += other, sum_up_to += other_sum;
                }
                uint32_t hits = __ballot_sync(~0u, own > 0 && enough(n + up_to, w + sum_up_to));
                if (hits) {
                    uint32_t lane = __ffs(hits) - 1;
                    found = first - 1 - lane;
                    n += __shfl_sync(~0u, up_to - own, lane), w += __shfl_sync(~0u, sum_up_to - own_sum, lane);
                } else {
                    n += __shfl_sync(~0u, up_to, 31), w += __shfl_sync(~0u, sum_up_to, 31);
                }
            }
            if (threadIdx.x == 0) bins.bin = found, bins.above_count = n, bins.above_sum = w;
        }
        __syncthreads();
        if (bins.bin == NONE) {
            // There are not so many: all are left.
            *weighs = bins.above_sum;
            return left;
        }
        prefix |= bins.bin << shift, mask |= (size - 1) << shift;
        above_count = bins.above_count, above_sum = bins.above_sum;
    }
    uint32_t ties = bins.count[bins.bin];
    uint64_t each = bins.sum[bins.bin] / ties;
    if (count > 0) ties = count - above_count;
    else if (each > 0) ties = min((uint64_t)ties, max((weight - above_sum + each - 1) / each, (uint64_t)1));
    *weighs = above_sum + ties * each;
    return {prefix, ties};
}

extern "C" __global__ void __launch_bounds__(THREADS) choose(const float *x, const Choice *choices, uint32_t *out, uint32_t width) {
    __shared__ Best of_warps[WARPS];
    __shared__ uint32_t counts[WARPS];
    __shared__ uint64_t sums[WARPS];
    __shared__ Bins bins;
    x += (size_t)blockIdx.x * width;
    out += blockIdx.x;
    Choice choice = choices[blockIdx.x];
    Best best = {-INFINITY, NONE};
    bool broken = false;
    for (uint32_t i = threadIdx.x; i < width; i += THREADS) {
        float number = x[i];
        broken |= !isfinite(number);
        best.take({number, i});
    }
    broken = __syncthreads_or(broken);
    best = of_warp(best);
    uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    if (lane == 0) of_warps[warp] = best;
    __syncthreads();
    best = of_warp(of_warps[lane]);
    if (broken || best.at == NONE || !(choice.temperature > 0.f)) {
        if (threadIdx.x == 0) *out = broken ? NONE : best.at;
        return;
    }
    Weigh weigh = {best.number, choice.temperature};
    Left left = {0, 0};
    uint64_t weighs = 0;
    if (choice.top_k > 0 && choice.top_k < width) {
        left = likeliest(x, width, weigh, left, choice.top_k, 0, bins, &weighs);
    }
    if (choice.top_p < 1.f) {
        if (left.ties == 0) {
            uint64_t own = 0;
            for (uint32_t i = threadIdx.x; i < width; i += THREADS) own += weigh.of(x[i]);
            before(own, sums, &weighs);
        }
        uint64_t wanted = max((uint64_t)ceil((double)fmaxf(choice.top_p, 0.f) * (double)weighs), (uint64_t)1);
        left = likeliest(x, width, weigh, left, 0, wanted, bins, &weighs);
    }
    uint64_t least = (uint64_t)ceil((double)fminf(fmaxf(choice.min_p, 0.f), 1.f) * ONE);
    // A thread has numbers that follow each other.
    uint32_t each = (width + THREADS - 1) / THREADS;
    uint32_t begin = min(threadIdx.x * each, width), end = min(begin + each, width), ties = 0, all_ties;
    for (uint32_t i = begin; i < end; i++) ties += key(x[i]) == left.key;
    ties = before(ties, counts, &all_ties);
    auto weight_of = [&](uint32_t i, uint32_t &ties) -> uint64_t {
        uint32_t k = key(x[i]);
        if (k < left.key || (k == left.key && ties++ >= left.ties)) return 0;
        uint64_t weight = weigh.of(x[i]);
        return weight >= least ? weight : 0;
    };
    uint64_t own = 0, total;
    uint32_t seen = ties;
    for (uint32_t i = begin; i < end; i++) own += weight_of(i, seen);
    uint64_t first = before(own, sums, &total);
    double draw = __hiloint2double((int)choice.draw[1], (int)choice.draw[0]);
    uint64_t place = min((uint64_t)(draw * (double)total), total - 1);
    if (place < first || place >= first + own) return;
    uint64_t rest = place - first;
    for (uint32_t i = begin; i < end; i++) {
        uint64_t weight = weight_of(i, ties);
        if (rest < weight) {
            *out = i;
            return;
        }
        rest -= weight;
    }
}

// The tokens at `rows` of `chosen`; what is none of the vocabulary becomes the first. A thread each.
extern "C" __global__ void feed(const uint32_t *chosen, const uint32_t *rows, uint32_t *out, uint32_t vocabulary,
                                uint32_t count) {
    uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    uint32_t id = chosen[rows[i]];
    out[i] = id < vocabulary ? id : 0;
}
