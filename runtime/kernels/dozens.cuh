// x · Wᵀ of up to 64 rows in 16 bits, on tensor cores: bound by reading the weights, each once, as long as x, which every
// multiprocessor needs, is not read as often. So some blocks, a cluster, have outputs together, and each of them a slice of
// what they are sums over: it reads a part of x alone, once. A warp has a tile of 16 outputs at a time, sends what it has of
// their sums to the blocks that have those rows, and goes on with the next; what the others have sent is added up a tile later,
// so that nobody waits for the slowest. From compute capability 9.0 on.
#pragma once
#include "instructions.cuh"
#include "element.cuh"
#include "normed.cuh"
#include "product.cuh"

namespace dozens {

constexpr int WARPS = 8, THREADS = WARPS * 32;
constexpr int CHUNK = 64;  // numbers of a row of weights that a warp takes at once: whole cache lines
constexpr int AHEAD = 4;   // more of them that are fetched into the cache before the block may begin
constexpr int PIECE = 256; // numbers of a row of x that come at a time
constexpr int COMING = 3;  // pieces that are on their way
constexpr int PAD = 32;    // numbers between rows of x, so that eight threads reading two of them use all banks
constexpr int STRIDE = PIECE + PAD;
constexpr int LANES = 32;
// Chunks of a warp that are on their way, beside the sums of so many rows; slices are filled up to multiples of them.
constexpr int FLIGHT = 8;

struct Sizes {
    uint32_t inner, outer, rows;
    uint32_t ranks; // blocks of a cluster, each of which gets as many eights of rows
    uint32_t slots; // pieces of x that there is room for: all of a slice, or more than COMING where there is one tile for a warp
};

// What a block has: outputs with its cluster, and of what they are sums over the numbers from `low` to `high`.
template <int WHAT> struct Share {
    static constexpr uint32_t TILE = WHAT == GATED ? 8 : 16;
    uint32_t rank, begin, end, tiles, width, low, high;

    __device__ explicit Share(const Sizes &of) {
        const uint32_t clusters = gridDim.x / of.ranks, own = blockIdx.x / of.ranks;
        rank = blockIdx.x % of.ranks;
        begin = of.outer * own / clusters, end = of.outer * (own + 1) / clusters;
        // As many for each warp, of equal width.
        tiles = (end - begin + WARPS * TILE - 1) / (WARPS * TILE);
        width = tiles ? (end - begin + WARPS * tiles - 1) / (WARPS * tiles) : 0;
        const uint32_t chunks = (of.inner + CHUNK - 1) / CHUNK;
        low = chunks * rank / of.ranks * CHUNK, high = min(chunks * (rank + 1) / of.ranks * CHUNK, of.inner);
    }
    __device__ __forceinline__ uint32_t chunks() const { return (high - low + CHUNK - 1) / CHUNK; }
    // The first output of this warp's tile.
    __device__ __forceinline__ uint32_t first(uint32_t tile) const {
        return begin + (tile * WARPS + threadIdx.x / LANES) * width;
    }
    // The row of weights of a tile's row, of which there are 16; none behind its end.
    __device__ __forceinline__ bool row(uint32_t tile, uint32_t n, uint32_t outer, uint32_t &at) const {
        uint32_t within = WHAT == GATED ? n % 8 : n, j = first(tile) + within;
        at = WHAT == GATED && n >= 8 ? outer + j : j;
        return within < width && j < end && tile < tiles;
    }
};

// Where a thread's next weights are: tile by tile, in each chunk by chunk.
template <typename T, int WHAT> struct Walk {
    const T *weights, *low, *high;
    bool has_low, has_high;
    uint32_t tile = 0, chunk = 0, chunks, at;

    __device__ __forceinline__ void place(const Share<WHAT> &share, const Sizes &of) {
        uint32_t n = threadIdx.x % LANES / 4, row;
        has_low = share.row(tile, n, of.outer, row), low = weights + (size_t)row * of.inner;
        has_high = share.row(tile, n + 8, of.outer, row), high = weights + (size_t)row * of.inner;
    }
    __device__ __forceinline__ void load(uint4 (&to)[2][2], const Share<WHAT> &share, const Sizes &of) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            uint32_t k = at + chunk * CHUNK + i * 32;
            bool in = k < share.high;
            to[0][i] = in && has_low ? stream(low + k) : make_uint4(0, 0, 0, 0);
            to[1][i] = in && has_high ? stream(high + k) : make_uint4(0, 0, 0, 0);
        }
        if (++chunk < chunks) return;
        chunk = 0, tile++;
        place(share, of);
    }
    // Brings what comes behind the first chunks, so many, into the cache: a thread has a line of every second of them.
    __device__ __forceinline__ void ahead(const Share<WHAT> &share, const Sizes &of, uint32_t first) const {
        uint32_t lane = threadIdx.x % LANES, row;
#pragma unroll
        for (int n = 0; n < AHEAD; n += 2) {
            uint32_t which = first + n + lane / 16, k = share.low + which % chunks * CHUNK;
            if (k < share.high && share.row(which / chunks, lane % 16, of.outer, row)) {
                prefetch(weights + (size_t)row * of.inner + k);
            }
        }
    }
};

// Rows of x in shared memory, piece by piece.
template <typename T, int ROWS> struct Pieces {
    const T *x;
    T *slots;

    __device__ __forceinline__ T *slot(uint32_t piece, const Sizes &of) const {
        return slots + piece % of.slots * (ROWS * STRIDE);
    }
    // Zeros behind the last row, and the last number.
    template <int WHAT>
    __device__ __forceinline__ void fetch(uint32_t piece, const Share<WHAT> &share, const Sizes &of) const {
        T *to = slot(piece, of);
        if (share.low + piece * PIECE < share.high) {
            for (uint32_t i = threadIdx.x; i < ROWS * (PIECE / 8); i += THREADS) {
                uint32_t r = i / (PIECE / 8), n = i % (PIECE / 8) * 8, k = share.low + piece * PIECE + n;
                bool is = r < of.rows && k < share.high;
                send(to + r * STRIDE + n, x + (is ? (size_t)r * of.inner + k : 0), is);
            }
        }
        // Also where there is none: batches are counted.
        sent();
    }
};

// Sums on their way from block to block: of a warp's tile, eight rows are four numbers of each thread, and of each of a cluster's
// blocks the same warp gets as many eights. There are two of them: one tile's come while another's are added up. Who sends a tile's
// has got all of the last one's, and so knows that those of the tile before that have been read.
template <int TILES> struct Mail {
    float4 *place;
    uint64_t *barriers; // of each warp and of either
    uint32_t ranks, own;

    __device__ __forceinline__ Mail(uint4 *shared, uint32_t ranks)
        : place(reinterpret_cast<float4 *>(shared)), ranks(ranks), own(TILES / ranks) {
        barriers = reinterpret_cast<uint64_t *>(place + 2 * WARPS * TILES * LANES);
    }
    __device__ __forceinline__ uint64_t *barrier(uint32_t tile) const {
        return barriers + tile % 2 * WARPS + threadIdx.x / LANES;
    }
    __device__ __forceinline__ float4 *at(uint32_t tile, uint32_t from, uint32_t n) const {
        uint32_t warp = threadIdx.x / LANES;
        return place + (((tile % 2 * ranks + from) * WARPS + warp) * own + n) * LANES + threadIdx.x % LANES;
    }
    __device__ __forceinline__ void begin() const {
        if (threadIdx.x < 2 * WARPS) mail_begins(barriers + threadIdx.x);
        __syncwarp();
        mail_is_ready();
    }
    __device__ __forceinline__ void send_out(uint32_t tile, uint32_t rank, float (&sums)[TILES][4]) const {
#pragma unroll
        for (int n = 0; n < TILES; n++) {
            float4 four = make_float4(sums[n][0], sums[n][1], sums[n][2], sums[n][3]);
            mail(at(tile, rank, n % own), n / own, four, barrier(tile));
            sums[n][0] = sums[n][1] = sums[n][2] = sums[n][3] = 0.f;
        }
        if (threadIdx.x % LANES == 0) mail_expected(barrier(tile), TILES * LANES * sizeof(float4));
    }
    // Until all of a tile's have come.
    __device__ __forceinline__ void wait(uint32_t tile) const { mail_has_come(barrier(tile), tile / 2 % 2); }
    __device__ __forceinline__ float4 added(uint32_t tile, uint32_t n) const {
        float4 sum = *at(tile, 0, n);
        for (uint32_t from = 1; from < ranks; from++) {
            float4 more = *at(tile, from, n);
            sum.x += more.x, sum.y += more.y, sum.z += more.z, sum.w += more.w;
        }
        return sum;
    }
};

// Where sums go.
template <typename T, int WHAT> struct Outputs {
    const float *bias;
    void *to;

    __device__ __forceinline__ void put(const Sizes &of, uint32_t row, uint32_t j, float sum) const {
        float *out = reinterpret_cast<float *>(to) + (size_t)row * of.outer + j;
        if (bias) sum += bias[j];
        *out = WHAT == ADDED ? __ldcg(out) + sum : sum;
    }
    __device__ __forceinline__ void gate(const Sizes &of, uint32_t row, uint32_t j, float gate, float sum) const {
        reinterpret_cast<T *>(to)[(size_t)row * of.outer + j] = narrow<T>(gate / (1.f + expf(-gate)) * sum);
    }
    // The sums of a thread: of two rows from `row` on, two outputs eight apart, or an output and its gate.
    __device__ __forceinline__ void write(const Share<WHAT> &share, const Sizes &of, uint32_t tile, uint32_t row,
                                          float4 sums) const {
        const uint32_t n = threadIdx.x % LANES / 4, first = share.first(tile), j = first + n;
        const bool is = n < share.width && j < share.end;
        if (WHAT == GATED) {
            if (is && row < of.rows) gate(of, row, j, sums.x, sums.z);
            if (is && row + 1 < of.rows) gate(of, row + 1, j, sums.y, sums.w);
            return;
        }
        const bool next = n + 8 < share.width && j + 8 < share.end;
        if (is && row < of.rows) put(of, row, j, sums.x);
        if (is && row + 1 < of.rows) put(of, row + 1, j, sums.y);
        if (next && row < of.rows) put(of, row, j + 8, sums.z);
        if (next && row + 1 < of.rows) put(of, row + 1, j + 8, sums.w);
    }
};

// Adds up what has come of a tile, and writes it.
template <int WHAT, typename T, int TILES>
__device__ __forceinline__ void finish(const Mail<TILES> &mail, const Outputs<T, WHAT> &outputs, const Share<WHAT> &share,
                                       const Sizes &of, uint32_t tile) {
    mail.wait(tile);
    for (uint32_t n = 0; n < mail.own; n++) {
        uint32_t row = (share.rank * mail.own + n) * 8 + threadIdx.x % 4 * 2;
        outputs.write(share, of, tile, row, mail.added(tile, n));
    }
}

// A chunk of weights times that of all rows, of which `x` is the thread's first number.
template <typename T, int TILES>
__device__ __forceinline__ void multiply(float (&sums)[TILES][4], const uint4 (&weights)[2][2], const T *x) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const uint4 low = weights[0][i], high = weights[1][i];
#pragma unroll
        for (int n = 0; n < TILES; n++) {
            uint4 row = *reinterpret_cast<const uint4 *>(x + n * 8 * STRIDE + i * 32);
            product(sums[n], {low.x, high.x, low.y, high.y}, row.x, row.y, T());
            product(sums[n], {low.z, high.z, low.w, high.w}, row.z, row.w, T());
        }
    }
}

// w [outer, inner] (twice outer where gated: gates, then partners), x [rows, inner] of up to TILES times 8 rows, y [rows, outer]:
// in f32 products, or products that are added to it; in T the SiLU of gates times their partners. Calls `wait`, once by each
// thread, before it reads or writes what others do.
template <int WHAT, int TILES, typename T, typename Wait>
__device__ __forceinline__ void products(const T *w, const T *x, const float *bias, void *y, const Sizes of,
                                         const Wait &wait) {
    extern __shared__ uint4 shared[];
    constexpr uint32_t EACH = PIECE / CHUNK;
    const Share<WHAT> share(of);
    const Mail<TILES> mail(shared, of.ranks);
    mail.begin();
    cluster_come();
    const uint32_t lane = threadIdx.x % LANES, chunks = share.chunks(), padded = (chunks + FLIGHT - 1) / FLIGHT * FLIGHT;
    const Pieces<T, TILES * 8> pieces{x, reinterpret_cast<T *>(mail.barriers + 2 * WARPS)};
    const Outputs<T, WHAT> outputs{bias, y};
    Walk<T, WHAT> walk{w};
    walk.chunks = padded, walk.at = share.low + lane % 4 * 8;
    uint4 weights[FLIGHT][2][2];
    walk.place(share, of);
#pragma unroll
    for (int f = 0; f < FLIGHT; f++) walk.load(weights[f], share, of);
    walk.ahead(share, of, FLIGHT);
    wait();
#pragma unroll
    for (int n = 0; n < COMING; n++) pieces.fetch(n, share, of);
    cluster_all();
    float sums[TILES][4] = {};
    for (uint32_t tile = 0; tile < share.tiles; tile++) {
        const bool has_any = share.first(tile) < share.end;
        for (uint32_t begin = 0; begin < padded; begin += FLIGHT) {
#pragma unroll
            for (int f = 0; f < FLIGHT; f++) {
                const uint32_t chunk = begin + f, piece = chunk / EACH;
                if (f % EACH == 0 && tile == 0) {
                    // The next piece is there, and nobody is at the one before it any more.
                    arrived<COMING - 1>();
                    __syncthreads();
                    pieces.fetch(piece + COMING, share, of);
                }
                if (chunk < chunks && has_any) {
                    const T *at = pieces.slot(piece, of) + lane / 4 * STRIDE + f % EACH * CHUNK + lane % 4 * 8;
                    multiply(sums, weights[f], at);
                }
                walk.load(weights[f], share, of);
            }
        }
        if (tile > 0) finish(mail, outputs, share, of, tile - 1);
        mail.send_out(tile, share.rank, sums);
    }
    if (share.tiles > 0) finish(mail, outputs, share, of, share.tiles - 1);
}

} // namespace dozens
