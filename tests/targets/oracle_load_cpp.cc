// As oracle_load.c, in C++: exceptions thrown through several frames and caught, virtual calls,
// containers of the standard library, templates that are inlined into each other, destructors that
// run while an exception passes. Runs until it is killed.
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <unordered_map>
#include <variant>
#include <vector>

namespace {

using Random = std::mt19937_64;

struct Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Allocates in its destructor, which an exception may run.
struct Guard {
  explicit Guard(uint64_t value) : text(std::to_string(value) + " is long enough for the heap") {}
  ~Guard() {
    auto copy = std::make_unique<std::string>(text + text);
    if (copy->empty()) std::abort();
  }
  std::string text;
};

struct Node {
  virtual ~Node() = default;
  virtual uint64_t visit(Random &random, unsigned depth) = 0;
};

std::unique_ptr<Node> make_node(Random &random);

[[gnu::noinline]] uint64_t descend(Random &random, unsigned depth) {
  if (depth == 0) return std::make_unique<std::string>(100, 'x')->size();
  return make_node(random)->visit(random, depth - 1);
}

struct Sorted : Node {
  uint64_t visit(Random &random, unsigned depth) override {
    std::vector<std::string> words;
    for (int i = 0; i < 6; i++) words.push_back(std::string(20 + random() % 20, 'a' + random() % 26));
    std::sort(words.begin(), words.end(), [](std::string a, std::string b) { return a < b; });
    return words.front().size() + descend(random, depth);
  }
};

struct Mapped : Node {
  uint64_t visit(Random &random, unsigned depth) override {
    std::map<uint64_t, std::vector<int>> map;
    std::unordered_map<std::string, std::list<double>> table;
    for (int i = 0; i < 4; i++) {
      map[random() % 8].resize(random() % 64);
      table["a key of some length " + std::to_string(random() % 4)].push_back(0.5);
    }
    return map.size() + table.size() + descend(random, depth);
  }
};

struct Throwing : Node {
  uint64_t visit(Random &random, unsigned depth) override {
    Guard guard(depth);
    if (random() % 3 == 0) throw Failure("thrown on purpose, with a text");
    return descend(random, depth) + guard.text.size();
  }
};

struct Catching : Node {
  uint64_t visit(Random &random, unsigned depth) override {
    try {
      Guard guard(depth);
      return descend(random, depth);
    } catch (const Failure &failure) {
      std::string text = std::string("caught: ") + failure.what();
      if (random() % 2 == 0) throw;
      return text.size() + descend(random, depth / 2);
    }
  }
};

struct Called : Node {
  uint64_t visit(Random &random, unsigned depth) override {
    std::function<uint64_t(unsigned)> call = [&random, big = std::string(64, 'c')](unsigned depth) {
      return big.size() + descend(random, depth);
    };
    std::vector<std::function<uint64_t(unsigned)>> calls(2, call);
    return calls[random() % 2](depth);
  }
};

struct Printed : Node {
  uint64_t visit(Random &random, unsigned depth) override {
    std::ostringstream stream;
    stream << "depth " << depth << ", and " << 0.5 * static_cast<double>(random());
    return stream.str().size() + descend(random, depth);
  }
};

template <unsigned N>
struct Nested {
  std::variant<std::string, std::vector<Nested<N - 1>>> value;
  explicit Nested(Random &random) {
    if (random() % 3 == 0) {
      value = std::string(30 + N, 'n');
      return;
    }
    std::vector<Nested<N - 1>> inner;
    for (unsigned i = 0; i < 2; i++) inner.emplace_back(random);
    value = std::move(inner);
  }
};
template <>
struct Nested<0> {
  std::shared_ptr<std::string> value;
  explicit Nested(Random &random) : value(std::make_shared<std::string>(random() % 90, '0')) {}
};

struct Templated : Node {
  uint64_t visit(Random &random, unsigned depth) override {
    Nested<5> nested(random), copy(nested);
    return copy.value.index() + descend(random, depth);
  }
};

std::unique_ptr<Node> make_node(Random &random) {
  switch (random() % 7) {
    case 0: return std::make_unique<Sorted>();
    case 1: return std::make_unique<Mapped>();
    case 2: return std::make_unique<Throwing>();
    case 3: return std::make_unique<Catching>();
    case 4: return std::make_unique<Called>();
    case 5: return std::make_unique<Printed>();
    default: return std::make_unique<Templated>();
  }
}

void work(uint64_t seed) {
  Random random(seed);
  for (uint64_t round = 0;; round++) {
    try {
      descend(random, random() % 16);
    } catch (const std::exception &) {
    }
    if (round % 16 == 0) usleep(200);
  }
}

}  // namespace

int main() {
  std::vector<std::thread> threads;
  for (uint64_t seed = 1; seed < 4; seed++) threads.emplace_back(work, seed);
  std::puts("ready");
  std::fflush(stdout);
  work(99);
}
