// Attention over a cache in 16 and 8 bits, of runs of rows, and of single rows on tensor cores, which store their tokens, and
// without; and the kernel that stores tokens: against sums in f64 of what the cache has.
#include "machine.h"

#include "kernels/attention.cu"
#include "kernels/kv_cache.cu"

#include "rotary.h"

namespace {

using Numbers = std::vector<float>;
using Exact = std::vector<double>;
constexpr size_t BLOCK_TOKENS = 32;

std::mt19937 chance(7);

struct Case {
    size_t heads, kv_heads, width;
    std::vector<uint32_t> positions; // of rows
    uint32_t workers;                // that share the keys of all rows
    float spread;                    // of values

    size_t row() const { return (heads + 2 * kv_heads) * width; }
};

// Numbers whose magnitude changes from one head of a token to the next, as values' does.
Numbers drawn(const Case &of, size_t rows) {
    std::normal_distribution<float> one;
    Numbers numbers;
    for (size_t head = 0; head < rows * (of.heads + 2 * of.kv_heads); head++) {
        bool of_value = head % (of.heads + 2 * of.kv_heads) >= of.heads + of.kv_heads;
        float spread = of_value ? of.spread * std::exp(2 * one(chance)) : 1;
        for (size_t n = 0; n < of.width; n++) numbers.push_back(spread * one(chance));
    }
    return numbers;
}

// A cache of T with sequences in it, and what a step over it is told.
template <typename T> struct Scene {
    const Case &of;
    std::vector<uint32_t> tables, singles;
    std::vector<Row> rows;
    Numbers angles;
    size_t blocks = 1, sequence = 0;
    machine::Aligned cache;

    static constexpr size_t SCALE = Kept<T>::SCALED ? sizeof(float) / sizeof(T) : 0;
    size_t head() const { return BLOCK_TOKENS * (of.width + SCALE); }
    size_t block() const { return of.kv_heads * head(); }
    size_t values() const { return blocks * block(); }
    size_t bytes() const { return 2 * values() * sizeof(T); }
    Strides strides() const {
        return {block(), values(), uint32_t(head()), uint32_t(of.width), BLOCK_TOKENS};
    }

    explicit Scene(const Case &of) : of(of), cache(0, 0) {
        uint32_t longest = *std::max_element(of.positions.begin(), of.positions.end());
        sequence = longest / BLOCK_TOKENS + 1, blocks = 1 + of.positions.size() * sequence;
        for (size_t n = 1; n < blocks; n++) tables.push_back(n);
        std::shuffle(tables.begin(), tables.end(), chance);
        for (uint32_t n = 0; n < of.positions.size(); n++) {
            rows.push_back({uint32_t(n * sequence), of.positions[n], of.positions[n]}), singles.push_back(n);
        }
        angles = angles_of(longest + 1, of.width);
        machine::Aligned room(bytes(), 0xff);
        std::swap(cache.at, room.at);
        // All tokens before the newest, as the kernel stores them.
        for (const Row &row : rows) {
            std::vector<Row> before;
            for (uint32_t at = 0; at < row.position; at++) before.push_back({row.table, at, at});
            store(before, drawn(of, before.size()));
        }
    }
    T *place() { return reinterpret_cast<T *>(cache.at); }

    void store(const std::vector<Row> &which, const Numbers &qkv) {
        if (which.empty()) return;
        auto kernel = [&](auto *store) {
            machine::launch({unsigned(which.size()), unsigned(of.kv_heads)}, 64, false, [&] {
                Strides at = strides();
                store(place(), at.block, at.value, at.head, at.token, at.block_tokens, tables.data(), which.data(),
                      qkv.data(), angles.data(), of.row(), of.kv_heads, of.width);
            });
        };
        if constexpr (std::is_same_v<T, __half>) kernel(store_f16);
        if constexpr (std::is_same_v<T, __nv_bfloat16>) kernel(store_bf16);
        if constexpr (std::is_same_v<T, Int8>) kernel(store_int8);
        if constexpr (std::is_same_v<T, Fp8>) kernel(store_fp8);
    }

    // What the cache has of a token.
    Exact kept(const Row &row, uint32_t position, size_t head, bool of_value) const {
        size_t begin = tables[row.table + position / BLOCK_TOKENS] * block() + head * this->head() + (of_value ? values() : 0);
        size_t token = position % BLOCK_TOKENS;
        const T *numbers = reinterpret_cast<const T *>(cache.at) + begin + token * of.width;
        float scale = 1;
        if constexpr (Kept<T>::SCALED) {
            memcpy(&scale, cache.at + begin + BLOCK_TOKENS * of.width + token * sizeof scale, sizeof scale);
        }
        Exact wide;
        for (size_t n = 0; n < of.width; n++) wide.push_back(double(scale) * number(numbers[n]));
        return wide;
    }
    static double number(__half x) { return __half2float(x); }
    static double number(__nv_bfloat16 x) { return __bfloat162float(x); }
    static double number(Int8 x) { return int8_t(x.bits); }
    static double number(Fp8 x) {
        int exponent = x.bits >> 3 & 15, fraction = x.bits & 7;
        double magnitude = exponent ? std::ldexp(8 + fraction, exponent - 10) : std::ldexp(fraction, -9);
        return x.bits & 0x80 ? -magnitude : magnitude;
    }
};

// How far the newest token in the cache is from what it should be, as a share of the largest number of its head.
template <typename T> double stored(const Scene<T> &scene, const Numbers &qkv) {
    const Case &of = scene.of;
    double wrong = 0;
    for (size_t n = 0; n < scene.rows.size(); n++) {
        const Row &row = scene.rows[n];
        for (size_t head = 0; head < of.kv_heads; head++) {
            const float *key = &qkv[n * of.row() + (of.heads + head) * of.width], *value = key + of.kv_heads * of.width;
            Exact want[2] = {turned(key, &scene.angles[row.angles * of.width], of.width), Exact(value, value + of.width)};
            for (int of_value = 0; of_value < 2; of_value++) {
                Exact got = scene.kept(row, row.position, head, of_value);
                double largest = 0, apart = 0;
                for (size_t i = 0; i < of.width; i++) {
                    largest = std::max(largest, std::abs(want[of_value][i]));
                    double off = std::abs(got[i] - want[of_value][i]);
                    apart = std::isnan(off) ? INFINITY : std::max(apart, off);
                }
                wrong = std::max(wrong, apart / largest);
            }
        }
    }
    return wrong;
}

// How far attention is from that in f64 to what the cache has, as a share of the largest value that it is to.
template <typename T> double attended(const Scene<T> &scene, const Numbers &qkv, const Numbers &out) {
    const Case &of = scene.of;
    const size_t group = of.heads / of.kv_heads, width = of.width;
    double wrong = 0;
    for (size_t n = 0; n < scene.rows.size(); n++) {
        const Row &row = scene.rows[n];
        for (size_t head = 0; head < of.heads; head++) {
            Exact query = turned(&qkv[n * of.row() + head * width], &scene.angles[row.angles * width], width), scores;
            std::vector<Exact> values;
            double sum = 0, highest = -INFINITY, largest = 0;
            for (uint32_t at = 0; at <= row.position; at++) {
                Exact key = scene.kept(row, at, head / group, false);
                double score = 0;
                for (size_t i = 0; i < width; i++) score += query[i] * key[i];
                scores.push_back(score / std::sqrt(width)), highest = std::max(highest, scores.back());
                values.push_back(scene.kept(row, at, head / group, true));
            }
            for (double &score : scores) sum += score = std::exp(score - highest);
            Exact mixed(width);
            for (size_t at = 0; at < scores.size(); at++) {
                for (size_t i = 0; i < width; i++) {
                    mixed[i] += scores[at] / sum * values[at][i];
                    largest = std::max(largest, std::abs(scores[at] / sum * values[at][i]));
                }
            }
            for (size_t i = 0; i < width; i++) {
                double off = std::abs(out[(n * of.heads + head) * width + i] - mixed[i]) / largest;
                wrong = std::isnan(off) ? INFINITY : std::max(wrong, off);
            }
        }
    }
    return wrong;
}

template <typename T, int HD> Numbers launched(Scene<T> &scene, const Numbers &qkv) {
    const Case &of = scene.of;
    Numbers parts(of.workers * 2 * single::QUERIES * (HD + 2), NAN), out(scene.rows.size() * of.heads * HD, NAN);
    const Shape shape{uint32_t(of.row()), uint32_t(of.heads), uint32_t(of.kv_heads), HD};
    // What the kernel before leaves is there when it has ended.
    Numbers late(qkv.size(), NAN);
    auto wait = [&] { late = qkv; };
    const single::Step<T, float> step{scene.place(),        scene.strides(),    scene.tables.data(), scene.rows.data(),
                                      scene.singles.data(), uint32_t(scene.rows.size()), late.data(), scene.angles.data(),
                                      parts.data(),         out.data(),         shape,               true};
    // Twice, so that what has been counted is counted anew: from the first worker to the last, and back.
    for (bool back : {false, true}) {
        std::fill(late.begin(), late.end(), NAN);
        machine::launch({of.workers}, single::THREADS, false, [&] {
            auto *shared = static_cast<single::Shared<T, HD, AHEAD> *>(machine::shared());
            single::attend<HD, AHEAD>(step, back ? gridDim.x - 1 - blockIdx.x : blockIdx.x, gridDim.x, *shared, wait);
        });
    }
    return out;
}

// The same of heads of any width, in one part.
template <typename T, int QUERIES> Numbers decoded(Scene<T> &scene, const Numbers &qkv) {
    const Case &of = scene.of;
    const size_t width = of.width, group = of.heads / of.kv_heads, rows = scene.rows.size();
    Numbers parts(rows * of.heads * (width + 2), NAN), out;
    const Shape shape{uint32_t(of.row()), uint32_t(of.heads), uint32_t(of.kv_heads), uint32_t(width)};
    const unsigned groups = of.kv_heads * ((group + QUERIES - 1) / QUERIES);
    machine::launch({1, groups, unsigned(rows)}, 32, false, [&] {
        decode<T, QUERIES>(scene.place(), scene.strides(), scene.tables.data(), scene.rows.data(), scene.singles.data(),
                           qkv.data(), scene.angles.data(), parts.data(), shape);
    });
    for (size_t head = 0; head < rows * of.heads; head++) {
        const float *part = &parts[head * (width + 2)];
        for (size_t n = 0; n < width; n++) out.push_back(part[n] / part[width + 1]);
    }
    return out;
}

// A run of the last `count` rows of a sequence.
template <typename T, int HD> Numbers read(Scene<T> &scene, const Numbers &qkv) {
    const Case &of = scene.of;
    Numbers out(scene.rows.size() * of.heads * of.width, NAN);
    const Shape shape{uint32_t(of.row()), uint32_t(of.heads), uint32_t(of.kv_heads), uint32_t(of.width)};
    const uint32_t run[] = {0, uint32_t(scene.rows.size())};
    machine::launch({1, unsigned(of.heads)}, flash::THREADS, false, [&] {
        prefill<T, float, HD>(scene.place(), scene.strides(), scene.tables.data(), scene.rows.data(), run, qkv.data(),
                              scene.angles.data(), out.data(), shape);
    });
    return out;
}

bool within(const char *what, const char *name, const Case &of, double wrong, double limit) {
    if (wrong <= limit) return true;
    printf("WRONG: %s of %s, %zu and %zu heads of %zu: %.1e\n", what, name, of.heads, of.kv_heads, of.width, wrong);
    return false;
}

template <typename T, int QUERIES> bool decodes(const char *name, const Case &of, double limit) {
    Scene<T> scene(of);
    Numbers qkv = drawn(of, scene.rows.size());
    scene.store(scene.rows, qkv);
    return within("single rows", name, of, attended(scene, qkv, decoded<T, QUERIES>(scene, qkv)), limit);
}

template <typename T, int HD> bool reads(const char *name, const Case &of, uint32_t count, double limit) {
    Scene<T> scene(of);
    const Row last = scene.rows[0];
    scene.rows.clear();
    for (uint32_t n = 0; n < count; n++) {
        const uint32_t position = last.position + 1 - count + n;
        scene.rows.push_back({last.table, position, position});
    }
    Numbers qkv = drawn(of, count);
    scene.store(scene.rows, qkv);
    return within("a run", name, of, attended(scene, qkv, read<T, HD>(scene, qkv)), limit);
}

// LIMITS: of what is stored, and of what is mixed.
template <typename T, int HD> bool holds(const char *name, const Case &of, double limit, double mixed) {
    Scene<T> scene(of);
    Numbers qkv = drawn(of, scene.rows.size()), out = launched<T, HD>(scene, qkv);
    double of_store = stored(scene, qkv), of_mixed = attended(scene, qkv, out);
    bool good = of_store <= limit && of_mixed <= mixed;
    if (!good) {
        printf("WRONG: %s, %zu and %zu heads of %d, %zu rows, %u workers: stored %.1e, mixed %.1e\n", name, of.heads,
               of.kv_heads, HD, scene.rows.size(), of.workers, of_store, of_mixed);
    }
    return good;
}

// A value that is no number must not become one.
template <typename T> bool keeps_what_is_no_number() {
    bool good = true;
    for (float broken : {NAN, INFINITY}) {
        const Case of{2, 1, 64, {40}, 2, 1};
        Scene<T> scene(of);
        Numbers qkv = drawn(of, 1);
        qkv[3 * 64 + 9] = broken;
        Numbers out = launched<T, 64>(scene, qkv);
        good &= !std::isfinite(out[9]) && !std::isfinite(out[64 + 9]);
    }
    if (!good) printf("WRONG: a value that is no number is lost\n");
    return good;
}

} // namespace

int main() {
    int cases = 0, wrong = 0;
    auto check = [&](bool good) { cases++, wrong += !good; };
    auto each = [&](const auto &run) {
        run("f16", __half(), 5e-4, 2e-3);
        run("bf16", __nv_bfloat16(), 4e-3, 1.6e-2);
        // Half a step of the scale; half of one behind three bits.
        run("int8", Int8(), 0.5 / 127 * 1.001, 2e-3);
        run("fp8", Fp8(), 1. / 28 * 1.001, 2e-3);
    };
    each([&](const char *name, auto type, double limit, double mixed) {
        using T = decltype(type);
        check(holds<T, 64>(name, {4, 2, 64, {70, 0, 31, 32}, 3, 1}, limit, mixed));
        check(holds<T, 128>(name, {4, 4, 128, {100, 15}, 64, 1e-3}, limit, mixed));
        // Several turns of each warp.
        check(holds<T, 64>(name, {2, 1, 64, {330, 64}, 1, 1}, limit, mixed));
        check(holds<T, 128>(name, {1, 1, 128, {511, 200}, 2, 1}, limit, mixed));
        // A worker that ends one head and begins another.
        check(holds<T, 64>(name, {2, 2, 64, {300}, 4, 1}, limit, mixed));
        check(holds<T, 96>(name, {12, 1, 96, {33, 16}, 2, 10}, limit, mixed));
        // More rows than a warp has threads, and more tiles than parts of a row can be joined.
        std::vector<uint32_t> many;
        for (uint32_t n = 0; n < 40; n++) many.push_back(n * 29 % 150);
        check(holds<T, 64>(name, {2, 2, 64, many, 7, 1}, limit, mixed));
        check(holds<T, 64>(name, {1, 1, 64, {65 * 64 + 5}, 66, 1}, limit, mixed));
        check(keeps_what_is_no_number<T>());
        check(decodes<T, 2>(name, {4, 2, 80, {70, 0, 33}, 1, 1}, 1e-5));
        check(decodes<T, 8>(name, {9, 1, 10, {5, 64}, 1, 10}, 1e-5));
        check(decodes<T, 1>(name, {3, 3, 128, {40}, 1, 1}, 1e-5));
        check(reads<T, 64>(name, {4, 2, 64, {130}, 1, 1}, 64, 2 * mixed));
        check(reads<T, 128>(name, {2, 1, 80, {70}, 1, 10}, 50, 2 * mixed));
        check(reads<T, 64>(name, {2, 2, 10, {63}, 1, 1}, 64, 2 * mixed));
    });
    printf("attention: %d cases, %d wrong\n", cases, wrong);
    return wrong;
}
