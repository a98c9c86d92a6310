// All layers of a decoder at once, against sums in f64 that are rounded where the kernel rounds.
#include "machine.h"

#include "kernels/decoder.cu"

namespace {

using Half = __half;
using Halves = std::vector<Half>;
using Numbers = std::vector<float>;
using Exact = std::vector<double>;

constexpr size_t BLOCK_TOKENS = 32, BLOCKS_OF_EACH = 8, POSITIONS = BLOCK_TOKENS * BLOCKS_OF_EACH;
constexpr float EPS = 1e-5f;

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
double halved(double number) { return __half2float(__float2half(float(number))); }

struct Case {
    size_t layers, rows, width, heads, kv_heads, head_dim, inner;
    std::vector<uint32_t> positions; // of as many rows, and again
    unsigned blocks;
    uint32_t most;  // parts of the keys of a row
    uint32_t phase; // numbers in shared memory at most

    size_t mixed() const { return heads * head_dim; }
    size_t qkv() const { return (heads + 2 * kv_heads) * head_dim; }
    size_t token() const { return kv_heads * head_dim; }
    size_t values() const { return (rows * BLOCKS_OF_EACH + 1) * BLOCK_TOKENS * token(); }
};

struct Weights {
    Halves qkv, out, gate_up, down, cache;
    Numbers input_norm, post_norm, bias;

    explicit Weights(const Case &of)
        : qkv(halves(of.qkv() * of.width, 1 / std::sqrt(of.width))), out(halves(of.width * of.mixed(), 1 / std::sqrt(of.mixed()))),
          gate_up(halves(2 * of.inner * of.width, 1 / std::sqrt(of.width))),
          down(halves(of.width * of.inner, 1 / std::sqrt(of.inner))), cache(halves(2 * of.values(), 1)),
          input_norm(normal(of.width, 0.2f, 1)), post_norm(normal(of.width, 0.2f, 1)), bias(normal(of.qkv(), 0.3f, 0)) {}

    Layer<Half> places() {
        return {input_norm.data(), qkv.data(),       bias.data(),    cache.data(),
                out.data(),        post_norm.data(), gate_up.data(), down.data()};
    }
};

// What all layers know of the rows.
struct Step {
    std::vector<uint32_t> tables, singles;
    std::vector<Row> rows;
    Numbers angles;

    explicit Step(const Case &of) : angles(POSITIONS * of.head_dim) {
        for (size_t block = 1; block <= of.rows * BLOCKS_OF_EACH; block++) tables.push_back(block);
        std::shuffle(tables.begin(), tables.end(), chance);
        for (uint32_t row = 0; row < of.rows; row++) {
            uint32_t position = of.positions[row % of.positions.size()];
            rows.push_back({uint32_t(row * BLOCKS_OF_EACH), position, position});
            singles.push_back(row);
        }
        const size_t half = of.head_dim / 2;
        for (size_t n = 0; n < POSITIONS * half; n++) {
            float angle = n / half * std::pow(10000.f, -float(n % half) / half);
            float *cosine = &angles[n / half * of.head_dim + n % half];
            cosine[0] = std::cos(angle), cosine[half] = std::sin(angle);
        }
    }
    size_t place(const Case &of, size_t row, size_t position, size_t kv_head) const {
        size_t block = tables[row * BLOCKS_OF_EACH + position / BLOCK_TOKENS];
        return (block * BLOCK_TOKENS + position % BLOCK_TOKENS) * of.token() + kv_head * of.head_dim;
    }
};

Exact multiplied(const Halves &weights, const Exact &x) {
    Exact y(weights.size() / x.size());
    for (size_t n = 0; n < weights.size(); n++) y[n / x.size()] += __half2float(weights[n]) * x[n % x.size()];
    return y;
}
Exact normed(const Exact &x, const Numbers &weight) {
    double squares = 0;
    for (double number : x) squares += number * number;
    Exact y(x.size());
    for (size_t n = 0; n < x.size(); n++) y[n] = halved(x[n] / std::sqrt(squares / x.size() + EPS) * weight[n]);
    return y;
}
Exact turned(const double *head, const float *angles, size_t width) {
    Exact y(width);
    const size_t half = width / 2;
    for (size_t n = 0; n < half; n++) {
        y[n] = head[n] * angles[n] - head[n + half] * angles[n + half];
        y[n + half] = head[n + half] * angles[n] + head[n] * angles[n + half];
    }
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
            mixed[head * width + n] = halved(all);
        }
    }
    return mixed;
}

Exact layer(const Case &of, const Step &step, Weights &weights, size_t row, Exact x) {
    auto add = [&](const Exact &products) {
        for (size_t n = 0; n < x.size(); n++) x[n] += products[n];
    };
    Exact qkv = multiplied(weights.qkv, normed(x, weights.input_norm));
    for (size_t n = 0; n < qkv.size(); n++) qkv[n] += weights.bias[n];
    add(multiplied(weights.out, attended(of, step, weights.cache, row, qkv)));
    Exact both = multiplied(weights.gate_up, normed(x, weights.post_norm)), gated(of.inner);
    for (size_t n = 0; n < of.inner; n++) gated[n] = halved(both[n] / (1 + std::exp(-both[n])) * both[of.inner + n]);
    add(multiplied(weights.down, gated));
    return x;
}

void launch(const Case &of, const Step &step, std::vector<Weights> &weights, Numbers &x, uint64_t &arrived) {
    std::vector<Layer<Half>> places;
    for (Weights &layer : weights) places.push_back(layer.places());
    Numbers qkv(of.rows * of.qkv(), NAN), parts(of.rows * of.heads * of.most * (of.head_dim + 2), NAN);
    Halves mixed(of.rows * of.mixed()), gated(of.rows * of.inner);
    auto phase = [&](size_t numbers) { return std::min(uint32_t(numbers), of.phase); };
    auto kernel = of.head_dim == 64 ? decoder_f16_64 : of.head_dim == 96 ? decoder_f16_96 : decoder_f16_128;
    machine::launch({of.blocks}, few::THREADS, true, [&] {
        kernel(places.data(), of.layers, of.rows, of.width, of.heads, of.kv_heads, of.inner, phase(of.width),
               phase(of.mixed()), phase(of.inner), EPS, BLOCK_TOKENS * of.token(), of.values(), of.head_dim, of.token(),
               BLOCK_TOKENS, step.tables.data(), step.rows.data(), step.singles.data(), step.angles.data(), x.data(),
               qkv.data(), parts.data(), mixed.data(), gated.data(), of.most, &arrived);
    });
}

bool holds(const Case &of) {
    const Step step(of);
    std::vector<Weights> weights;
    for (size_t n = 0; n < of.layers; n++) weights.emplace_back(of);
    std::vector<Weights> wanted = weights;
    Numbers x = normal(of.rows * of.width, 2, 0);
    const Numbers before = x;
    // As other kernels have left it.
    uint64_t arrived = 6 * of.blocks;
    launch(of, step, weights, x, arrived);
    double wrong = 0, largest = 0, stored = 0;
    for (size_t row = 0; row < of.rows; row++) {
        Exact want(before.begin() + row * of.width, before.begin() + (row + 1) * of.width);
        for (Weights &of_layer : wanted) want = layer(of, step, of_layer, row, want);
        for (size_t n = 0; n < of.width; n++) {
            double apart = std::abs(x[row * of.width + n] - want[n]);
            wrong = std::isnan(apart) ? INFINITY : std::max(wrong, apart), largest = std::max(largest, std::abs(want[n]));
        }
    }
    for (size_t n = 0; n < of.layers; n++) {
        for (size_t at = 0; at < 2 * of.values(); at++) {
            double apart = __half2float(weights[n].cache[at]) - __half2float(wanted[n].cache[at]);
            stored = std::isnan(apart) ? INFINITY : std::max(stored, std::abs(apart));
        }
    }
    const bool good = wrong < 2e-3 * largest && stored < 1e-2 && arrived % of.blocks == 0;
    if (!good) {
        printf("WRONG: %zu layers of %zu numbers, %zu and %zu heads of %zu, %zu gated, %zu rows, %u blocks: %.1e of %.1f, "
               "cache %.1e, %u more blocks have come than go\n",
               of.layers, of.width, of.heads, of.kv_heads, of.head_dim, of.inner, of.rows, of.blocks, wrong, largest, stored,
               unsigned(arrived % of.blocks));
    }
    return good;
}

} // namespace

int main() {
    const Case cases[] = {
        {2, 1, 256, 4, 2, 64, 384, {70}, 2, 3, 1 << 20},
        {2, 3, 128, 2, 1, 128, 200, {0, 200, 63}, 3, 4, 1 << 20},
        // More heads of a kv head than are multiplied together, and fewer parts than blocks.
        {1, 8, 192, 10, 1, 64, 1040, {5, 64, 250, 15, 16}, 3, 2, 1 << 20},
        // Rows in several parts.
        {2, 5, 192, 2, 2, 96, 3000, {130, 1, 31}, 2, 64, 1024},
        {3, 2, 1104, 3, 3, 64, 72, {127, 128}, 4, 2, 1024},
    };
    int wrong = 0;
    for (const Case &of : cases) wrong += !holds(of);
    printf("decoder: %zu cases, %d wrong\n", std::size(cases), wrong);
    return wrong;
}
