// All layers of a decoder at once, with quantised weights, against sums in f64 of what is rounded where the kernel rounds it.
#include "machine.h"

#include "kernels/decoder.cuh"
#include "kernels/pack.cu"

#include "blocks.h"
#include "rotary.h"

// Those of the kernels that are tested.
DECODER(q8_0_64, packed::Q8_0, __half, 64)
DECODER(q8_0_96, packed::Q8_0, __half, 96)
DECODER(q4_0_128, packed::Q4_0, __half, 128)
DECODER(q4_k_64, packed::Q4_K, __half, 64)

namespace {

using Half = __half;
using Halves = std::vector<Half>;
using Numbers = std::vector<float>;
using Exact = std::vector<double>;

constexpr size_t BLOCK_TOKENS = 32, BLOCKS_OF_EACH = 8, POSITIONS = BLOCK_TOKENS * BLOCKS_OF_EACH;
constexpr float EPS = 1e-5f;
// Bytes before the rows of products, and before the stages of the ring.
constexpr uint32_t ROWS_AT = 24 << 10, STAGES_AT = 112 << 10;

std::mt19937 chance(11);

Numbers normal(size_t count, float spread, float mean) {
    std::normal_distribution<float> one(mean, spread);
    Numbers numbers(count);
    for (float &number : numbers) number = one(chance);
    return numbers;
}
Halves halves(size_t count, float spread) {
    Halves numbers;
    for (float number : normal(count, spread, 0)) numbers.push_back(__float2half(number));
    return numbers;
}

// Quantised weights. SPREAD: standard deviation of random numbers under scales of one.
template <typename F> struct Quantised {
    gguf::Format format = of();
    size_t outputs;
    gguf::Bytes blocks;
    machine::Aligned packed;

    Quantised(size_t outputs, size_t row)
        : outputs(outputs), blocks(gguf::random(format, outputs, row, 1 / (spread() * std::sqrt(row)), chance)),
          packed(format.packed(outputs, row), 0) {
        auto *words = reinterpret_cast<uint16_t *>(blocks.data());
        size_t count = blocks.size() / 2;
        machine::launch({unsigned(count + 255) / 256}, 256, false, [&] { pack<F>(words, packed.at, row, count, 0); });
    }
    const uint8_t *place() const { return packed.at; }
    Exact times(const Exact &x) const {
        Numbers row(x.begin(), x.end());
        Exact rounded = gguf::rounded(format, row.data(), row.size()), y(outputs);
        for (size_t o = 0; o < outputs; o++) {
            for (size_t k = 0; k < x.size(); k++) y[o] += format.weight(blocks, o, x.size(), k) * rounded[k];
        }
        return y;
    }
    static gguf::Format of() {
        if constexpr (std::is_same_v<F, packed::Q8_0>) return FORMAT(q8_0, Q8_0);
        if constexpr (std::is_same_v<F, packed::Q4_0>) return FORMAT(q4_0, Q4_0);
        if constexpr (std::is_same_v<F, packed::Q4_K>) return FORMAT(q4_k, Q4_K);
    }
    static float spread() { return F::NUMBERS == 2 && F::BLOCK == 32 ? 110 : F::BLOCK == 32 ? 7 : 250; }
    static auto kernel(size_t width) {
        if constexpr (std::is_same_v<F, packed::Q8_0>) return width == 64 ? q8_0_64 : q8_0_96;
        if constexpr (std::is_same_v<F, packed::Q4_0>) return q4_0_128;
        if constexpr (std::is_same_v<F, packed::Q4_K>) return q4_k_64;
    }
    // What attention rounds otherwise falls to the other side in 8 bits at times, which is one of 127 of the largest number
    // that shares its scale.
    static constexpr double limit = F::SCALED == 256 ? 4e-2 : 1e-2;
};

struct Case {
    size_t layers, rows, width, heads, kv_heads, head_dim, inner;
    std::vector<uint32_t> positions; // of as many rows, and again
    unsigned blocks;
    uint32_t phase;  // numbers in shared memory at most
    uint32_t stages; // of the ring

    size_t mixed() const { return heads * head_dim; }
    size_t qkv() const { return (heads + 2 * kv_heads) * head_dim; }
    size_t token() const { return kv_heads * head_dim; }
    size_t values() const { return (rows * BLOCKS_OF_EACH + 1) * BLOCK_TOKENS * token(); }
};

template <typename Matrix> struct Weights {
    Matrix qkv, out, gate_up, down;
    Halves cache, stored; // as the kernel has it, and as it should
    Numbers input_norm, post_norm, bias;

    explicit Weights(const Case &of)
        : qkv(of.qkv(), of.width), out(of.width, of.mixed()), gate_up(2 * of.inner, of.width), down(of.width, of.inner),
          cache(halves(2 * of.values(), 1)), stored(cache), input_norm(normal(of.width, 0.2f, 1)),
          post_norm(normal(of.width, 0.2f, 1)), bias(normal(of.qkv(), 0.3f, 0)) {}

    decoder::Layer<Half> places() {
        return {input_norm.data(), qkv.place(),      bias.data(),     cache.data(),
                out.place(),       post_norm.data(), gate_up.place(), down.place()};
    }
};

// What all layers know of the rows.
struct Step {
    std::vector<uint32_t> tables, singles;
    std::vector<Row> rows;
    Numbers angles;

    explicit Step(const Case &of) : angles(angles_of(POSITIONS, of.head_dim)) {
        for (size_t block = 1; block <= of.rows * BLOCKS_OF_EACH; block++) tables.push_back(block);
        std::shuffle(tables.begin(), tables.end(), chance);
        for (uint32_t row = 0; row < of.rows; row++) {
            uint32_t position = of.positions[row % of.positions.size()];
            rows.push_back({uint32_t(row * BLOCKS_OF_EACH), position, position});
            singles.push_back(row);
        }
    }
    size_t place(const Case &of, size_t row, size_t position, size_t kv_head) const {
        size_t block = tables[row * BLOCKS_OF_EACH + position / BLOCK_TOKENS];
        return ((block * of.kv_heads + kv_head) * BLOCK_TOKENS + position % BLOCK_TOKENS) * of.head_dim;
    }
};

Exact normed(const Exact &x, const Numbers &weight) {
    double squares = 0;
    for (double number : x) squares += number * number;
    Exact y(x.size());
    for (size_t n = 0; n < x.size(); n++) y[n] = x[n] / std::sqrt(squares / x.size() + EPS) * weight[n];
    return y;
}

// Attention of a row, whose own keys and values are stored first.
Exact attended(const Case &of, const Step &step, Halves &cache, size_t row, const Exact &qkv) {
    const size_t width = of.head_dim, position = step.rows[row].position, group = of.heads / of.kv_heads;
    const float *angles = &step.angles[position * width];
    for (size_t head = 0; head < of.kv_heads; head++) {
        const double *key = &qkv[(of.heads + head) * width], *value = key + of.token();
        Exact rotated = turned(key, angles, width);
        for (size_t n = 0; n < width; n++) {
            size_t at = step.place(of, row, position, head) + n;
            cache[at] = __float2half(float(rotated[n])), cache[of.values() + at] = __float2half(float(value[n]));
        }
    }
    Exact mixed(of.mixed());
    for (size_t head = 0; head < of.heads; head++) {
        Exact query = turned(&qkv[head * width], angles, width), scores;
        double sum = 0, largest = -INFINITY;
        for (size_t at = 0; at <= position; at++) {
            const Half *key = &cache[step.place(of, row, at, head / group)];
            double score = 0;
            for (size_t n = 0; n < width; n++) score += query[n] * __half2float(key[n]);
            scores.push_back(score / std::sqrt(width)), largest = std::max(largest, scores.back());
        }
        for (double &score : scores) sum += score = std::exp(score - largest);
        for (size_t n = 0; n < width; n++) {
            double all = 0;
            for (size_t at = 0; at <= position; at++) {
                all += scores[at] / sum * __half2float(cache[of.values() + step.place(of, row, at, head / group) + n]);
            }
            mixed[head * width + n] = all;
        }
    }
    return mixed;
}

template <typename Matrix> Exact layer(const Case &of, const Step &step, Weights<Matrix> &weights, size_t row, Exact x) {
    auto add = [&](const Exact &products) {
        for (size_t n = 0; n < x.size(); n++) x[n] += products[n];
    };
    Exact qkv = weights.qkv.times(normed(x, weights.input_norm));
    for (size_t n = 0; n < qkv.size(); n++) qkv[n] += weights.bias[n];
    add(weights.out.times(attended(of, step, weights.stored, row, qkv)));
    Exact both = weights.gate_up.times(normed(x, weights.post_norm)), gated(of.inner);
    for (size_t n = 0; n < of.inner; n++) gated[n] = both[n] / (1 + std::exp(-both[n])) * both[of.inner + n];
    add(weights.down.times(gated));
    return x;
}

template <typename Matrix>
void launch(const Case &of, const Step &step, std::vector<Weights<Matrix>> &weights, Numbers &x, uint32_t &come) {
    std::vector<decoder::Layer<Half>> places;
    for (auto &layer : weights) places.push_back(layer.places());
    Numbers qkv(of.rows * of.qkv(), NAN), parts(of.blocks * 2 * 2 * single::QUERIES * (of.head_dim + 2), NAN);
    Numbers mixed(of.rows * of.mixed()), gated(of.rows * of.inner);
    auto phase = [&](size_t numbers) { return std::min(uint32_t(numbers + 511) / 512 * 512, of.phase); };
    machine::launch({of.blocks}, ring::THREADS, true, [&] {
        Matrix::kernel(of.head_dim)(places.data(), of.layers, of.rows, of.width, of.heads, of.kv_heads, of.inner,
                                    phase(of.width), phase(of.mixed()), phase(of.inner), ROWS_AT, STAGES_AT, of.stages, EPS,
                                    BLOCK_TOKENS * of.token(), of.values(), BLOCK_TOKENS * of.head_dim, of.head_dim, BLOCK_TOKENS,
                                    step.tables.data(), step.rows.data(), step.singles.data(), step.angles.data(), x.data(),
                                    qkv.data(), parts.data(), mixed.data(), gated.data(), &come);
    });
}

template <typename Matrix> bool holds(const Case &of) {
    const Step step(of);
    std::vector<Weights<Matrix>> weights;
    for (size_t n = 0; n < of.layers; n++) weights.emplace_back(of);
    Numbers x = normal(of.rows * of.width, 2, 0);
    const Numbers before = x;
    uint32_t come = 0;
    launch(of, step, weights, x, come);
    double wrong = 0, largest = 0, stored = 0;
    for (size_t row = 0; row < of.rows; row++) {
        Exact want(before.begin() + row * of.width, before.begin() + (row + 1) * of.width);
        for (auto &of_layer : weights) want = layer(of, step, of_layer, row, want);
        for (size_t n = 0; n < of.width; n++) {
            double apart = std::abs(x[row * of.width + n] - want[n]);
            wrong = std::isnan(apart) ? INFINITY : std::max(wrong, apart), largest = std::max(largest, std::abs(want[n]));
        }
    }
    for (auto &of_layer : weights) {
        for (size_t at = 0; at < 2 * of.values(); at++) {
            double apart = __half2float(of_layer.cache[at]) - __half2float(of_layer.stored[at]);
            stored = std::isnan(apart) ? INFINITY : std::max(stored, std::abs(apart));
        }
    }
    const bool good = wrong < Matrix::limit * largest && stored < 10 * Matrix::limit && come == 0;
    if (!good) {
        printf("WRONG: %zu layers of %zu numbers, %zu and %zu heads of %zu, %zu gated, %zu rows, %u blocks: %.1e of %.1f, "
               "cache %.1e, %u blocks left\n",
               of.layers, of.width, of.heads, of.kv_heads, of.head_dim, of.inner, of.rows, of.blocks, wrong, largest, stored, come);
    }
    return good;
}

} // namespace

int main() {
    int cases = 0, wrong = 0;
    auto check = [&](bool good) { cases++, wrong += !good; };
    check(holds<Quantised<packed::Q8_0>>({2, 1, 160, 4, 2, 64, 352, {70}, 2, 1 << 20, 5}));
    // More heads of a kv head than are multiplied together, and more rows than a block has room for in one part.
    check(holds<Quantised<packed::Q8_0>>({1, 8, 192, 10, 1, 64, 1024, {5, 64, 250, 15, 16}, 3, 512, 2}));
    check(holds<Quantised<packed::Q8_0>>({2, 5, 192, 2, 2, 96, 3008, {130, 1, 31}, 2, 1024, 4}));
    check(holds<Quantised<packed::Q8_0>>({1, 7, 352, 4, 4, 64, 608, {5, 64, 250}, 3, 512, 2}));
    check(holds<Quantised<packed::Q4_0>>({2, 3, 160, 2, 1, 128, 352, {0, 200, 63}, 2, 1 << 20, 3}));
    check(holds<Quantised<packed::Q4_K>>({2, 2, 256, 4, 2, 64, 768, {70, 12}, 3, 1 << 20, 4}));
    check(holds<Quantised<packed::Q4_K>>({1, 8, 512, 4, 2, 64, 768, {130, 1, 31}, 2, 512, 1}));
    printf("decoder: %d cases, %d wrong\n", cases, wrong);
    return wrong;
}
