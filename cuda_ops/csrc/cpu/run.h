// Runs a lambda on torch's threads; a piece of memory that frees itself.
#pragma once
#include "machine.h"
#include "simd.h"

namespace isg::ISG_NS {
namespace {

template <class F>
void parallel(int64_t n, int64_t grain, F f) {
  cpu::parallel_range(n, grain, [](void* g, int64_t begin, int64_t end) { (*static_cast<F*>(g))(begin, end); }, &f);
}

// The same for a lambda that captures by value: each thread works on a copy in its registers. What is captured in
// memory that others can reach would be read anew after every store.
template <class F>
void parallel_by_value(int64_t n, int64_t grain, F f) {
  const auto run = [](void* g, int64_t begin, int64_t end) {
    const F own = *static_cast<F*>(g);
    own(begin, end);
  };
  cpu::parallel_range(n, grain, run, &f);
}

template <class T>
struct Scratch {
  T* data;
  explicit Scratch(int64_t count) : data(static_cast<T*>(cpu::allocate(static_cast<size_t>(count) * sizeof(T)))) {
    memset(data, 0, static_cast<size_t>(count) * sizeof(T));
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { cpu::release(data); }
};

}  // namespace
}  // namespace isg::ISG_NS
