// Runs CUDA kernel source on the CPU, thread by thread. Each CUDA thread of a block is a fiber; the fibers of a block
// run one at a time and change only at barriers and shuffles. Needs a host C++17 compiler, and nothing from CUDA.
//
// With -fsanitize=address,undefined each load and store of a kernel is checked. With -fsanitize=thread each fiber is a
// thread to the race detector, and only __syncthreads (within a block) and the end of a kernel order them, so that
// races on shared and on global memory are reported by line. Shuffles exchange values, but order no memory.
//
//   EMU_ORDER=fwd|rev|<seed>   order of the threads between barriers, and of the blocks
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <type_traits>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#if defined(__SANITIZE_THREAD__)
extern "C" {
void* __tsan_create_fiber(unsigned);
void __tsan_switch_to_fiber(void*, unsigned);
void* __tsan_get_current_fiber();
void __tsan_acquire(void*);
void __tsan_release(void*);
}
#define EMU_TSAN 1
#else
#define EMU_TSAN 0
#endif
#if defined(__SANITIZE_ADDRESS__)
extern "C" {
void __sanitizer_start_switch_fiber(void**, const void*, size_t);
void __sanitizer_finish_switch_fiber(void*, const void**, size_t*);
}
#define EMU_ASAN 1
#else
#define EMU_ASAN 0
#endif
#define EMU_RAW __attribute__((no_sanitize("thread"), noinline))  // the emulator's own memory is no kernel's

// ------------------------------------------------------------------------------------- the language, to a host compiler

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};

// No operators and no conversions: what torch's -D__CUDA_NO_HALF_* leaves of them.
struct __half {
  _Float16 v;
};
inline float __half2float(__half h) { return static_cast<float>(h.v); }
inline __half __float2half_rn(float f) { return {static_cast<_Float16>(f)}; }

struct __nv_bfloat16 {
  uint16_t v;
};
inline float __bfloat162float(__nv_bfloat16 h) {
  const uint32_t bits = uint32_t(h.v) << 16;
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}
inline __nv_bfloat16 __float2bfloat16_rn(float f) {
  uint32_t bits;
  std::memcpy(&bits, &f, 4);
  if (f != f) return {0x7fff};
  return {static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};  // to nearest, ties to even
}

inline uint32_t __umulhi(uint32_t a, uint32_t b) { return static_cast<uint32_t>(uint64_t(a) * b >> 32); }
using std::max;
using std::min;

// ------------------------------------------------------------------------------------------------------------ fibers

namespace emu {

constexpr size_t kStack = 128 << 10, kSharedLimit = 48 << 10;

#if defined(__x86_64__)
// swapcontext asks the kernel for the signal mask at each switch, which takes most of the time of a test. This keeps
// the registers that a function must preserve on the stack, and changes stacks.
extern "C" void emu_switch(void** save, void* to);
#define EMU_SWITCH_ASM                                                                                     \
  asm(".text\n.weak emu_switch\n.type emu_switch,@function\nemu_switch:\n"                                 \
      "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"                           \
      "movq %rsp, (%rdi)\nmovq %rsi, %rsp\n"                                                               \
      "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nret\n.size emu_switch,.-emu_switch\n");
EMU_SWITCH_ASM
struct Context {
  void* sp;
};
EMU_RAW inline void prepare(Context& c, char* stack, void (*entry)()) {
  uintptr_t top = reinterpret_cast<uintptr_t>(stack + kStack) & ~uintptr_t(15);
  void** sp = reinterpret_cast<void**>(top) - 2;  // as a call leaves the stack: 8 beside a multiple of 16
  *sp = reinterpret_cast<void*>(entry);
  sp -= 6;
  std::memset(sp, 0, 6 * sizeof(void*));
  c.sp = sp;
}
EMU_RAW inline void change(Context& from, Context& to) { emu_switch(&from.sp, to.sp); }
#else
using Context = ucontext_t;
EMU_RAW inline void prepare(Context& c, char* stack, void (*entry)()) {
  getcontext(&c);
  c.uc_stack.ss_sp = stack;
  c.uc_stack.ss_size = kStack;
  c.uc_link = nullptr;
  makecontext(&c, entry, 0);
}
EMU_RAW inline void change(Context& from, Context& to) { swapcontext(&from, &to); }
#endif

enum Wait { kRun, kBlock, kWarp, kDone };

struct Fiber {
  Context context;
  char* stack;
  void *tsan, *asan;
  uint3 tid;
  Wait wait;
  int line;         // of the barrier or shuffle it waits at
  unsigned mask;    // of the lanes a shuffle names
  uint64_t slot[2];  // what it gives to a shuffle; two, as a lane may reach the next shuffle before another reads this
  int parity, turn;
};

struct SharedVariable {
  int key;
  void* at;
};

constexpr int kPools = EMU_TSAN ? 7 : 1;  // as fibers that ran one block order it before the next one that they run
constexpr size_t kKeys = 64;

struct State {
  Fiber* pool[kPools] = {};
  int capacity[kPools] = {};
  Fiber* fibers = nullptr;
  int current = -1, n = 0;
  Context main;
  void* main_tsan = nullptr;
  const void* main_stack = nullptr;
  size_t main_size = 0;
  void* main_asan = nullptr;
  dim3 grid, block;
  uint3 bid;
  void (*body)(void*) = nullptr;
  void* argument = nullptr;
  SharedVariable shared[32];
  int n_shared = 0;
  size_t shared_bytes = 0;
  char* chunk = nullptr;  // TSan only: this block's: what its barriers synchronise on, then its shared memory
  size_t chunk_size = 0;
  void** kept = nullptr;  // TSan only: memory that is kept to the end of the kernel
  size_t n_kept = 0, kept_capacity = 0;
  int error = 0;
  char kernel_start, kernel_end;
  uint64_t barriers = 0, serial = 0;  // barriers and blocks so far
};
inline State& S() {
  static State s;
  return s;
}

enum Error { kInvalidConfiguration = 9, kDivergent = 9001, kTooMuchShared = 9002 };

inline int fail(int code, const char* what) {
  std::fprintf(stderr, "cuda_emu: %s\n", what);
  return S().error = code;
}

EMU_RAW inline void to_fiber(int i) {
  State& s = S();
  s.current = i;
#if EMU_TSAN
  __tsan_switch_to_fiber(s.fibers[i].tsan, 1);
#endif
#if EMU_ASAN
  __sanitizer_start_switch_fiber(&s.main_asan, s.fibers[i].stack, kStack);
#endif
  change(s.main, s.fibers[i].context);
#if EMU_ASAN
  __sanitizer_finish_switch_fiber(s.main_asan, nullptr, nullptr);
#endif
}

EMU_RAW inline void to_main(bool for_good) {
  State& s = S();
  Fiber& f = s.fibers[s.current];
#if EMU_TSAN
  __tsan_switch_to_fiber(s.main_tsan, 1);
#endif
#if EMU_ASAN
  __sanitizer_start_switch_fiber(for_good ? nullptr : &f.asan, s.main_stack, s.main_size);
#endif
  change(f.context, s.main);
#if EMU_ASAN
  __sanitizer_finish_switch_fiber(f.asan, &s.main_stack, &s.main_size);
#endif
  (void)for_good;
}

EMU_RAW inline void entry() {
  State& s = S();
#if EMU_ASAN
  __sanitizer_finish_switch_fiber(nullptr, &s.main_stack, &s.main_size);
#endif
#if EMU_TSAN
  __tsan_acquire(&s.kernel_start);
#endif
  s.body(s.argument);
#if EMU_TSAN
  __tsan_release(&s.kernel_end);
#endif
  s.fibers[s.current].wait = kDone;
  to_main(true);
  std::abort();
}

EMU_RAW inline void wait(Wait kind, int line, unsigned mask) {
  State& s = S();
  Fiber& f = s.fibers[s.current];
#if EMU_TSAN
  // The keys are this block's own, so its barriers order nothing in another block; and barriers in a row take turns
  // on two keys, so that a fiber that goes on late doesn't see what others released at the next one.
  char* key = s.chunk + 8 * (f.turn ^= kind == kBlock);
  if (kind == kBlock) __tsan_release(key);
#endif
  f.wait = kind;
  f.line = line;
  f.mask = mask;
  to_main(false);
#if EMU_TSAN
  if (kind == kBlock) __tsan_acquire(key);
#endif
}

// `from`: the lane to read, or one outside of the warp for the caller's own value.
template <class T>
EMU_RAW inline T shuffle(unsigned mask, T value, int from, int line) {
  static_assert(sizeof(T) <= 8);
  State& s = S();
  const int me = s.current, parity = s.fibers[me].parity ^= 1;
  std::memcpy(&s.fibers[me].slot[parity], &value, sizeof(T));
  wait(kWarp, line, mask);
  const int source = from < 0 || from > 31 ? me : me / 32 * 32 + from;
  if (source >= s.n || !(mask >> (source % 32) & 1)) {
    fail(kDivergent, "a shuffle reads a lane that takes no part in it");
    return value;
  }
  T result;
  std::memcpy(&result, &s.fibers[source].slot[parity], sizeof(T));
  return result;
}

EMU_RAW inline void* keep(size_t bytes) {
  State& s = S();
  if (s.n_kept == s.kept_capacity) {
    s.kept_capacity = s.kept_capacity * 2 + 64;
    s.kept = static_cast<void**>(std::realloc(s.kept, s.kept_capacity * sizeof(void*)));
  }
  return s.kept[s.n_kept++] = std::malloc(bytes);
}

// One allocation for each block and variable, filled with 0xFF (NaN): it has redzones of its own under ASan, and an
// address of its own for each block under TSan, so that blocks aren't ordered by using it again.
EMU_RAW inline void* shared(int key, size_t bytes) {
  State& s = S();
  for (int i = 0; i < s.n_shared; i++)
    if (s.shared[i].key == key) return s.shared[i].at;
  if (s.n_shared == 32) std::abort();
#if EMU_TSAN
  if (kKeys + s.shared_bytes + bytes > s.chunk_size) {
    std::fprintf(stderr, "cuda_emu: all shared variables must be declared at the start of a kernel\n");
    std::abort();
  }
  char* at = s.chunk + kKeys + s.shared_bytes;
  for (size_t i = 0; i < bytes; i++) const_cast<volatile char&>(at[i]) = '\xff';  // memset would count as the kernel's
#else
  void* at = std::malloc(bytes);
  std::memset(at, 0xFF, bytes);
#endif
  s.shared_bytes += (bytes + 15) / 16 * 16;
  s.shared[s.n_shared++] = {key, at};
  return at;
}

// --------------------------------------------------------------------------------------------------- blocks and grids

struct Order {
  int mode = 0;  // 0: forward, 1: reverse, 2: shuffled
  uint32_t state = 0;
  Order() {
    const char* e = std::getenv("EMU_ORDER");
    mode = !e || !std::strcmp(e, "fwd") ? 0 : !std::strcmp(e, "rev") ? 1 : 2;
    state = (e ? static_cast<uint32_t>(std::atoi(e)) : 0u) * 2654435762u + 2463534243u;
  }
  EMU_RAW void fill(int* v, int n) {
    for (int i = 0; i < n; i++) v[i] = mode == 1 ? n - 1 - i : i;
    for (int i = n - 1; mode == 2 && i > 0; i--) {
      state ^= state << 13;
      state ^= state >> 17;
      state ^= state << 5;
      std::swap(v[i], v[state % (i + 1)]);
    }
  }
};
inline Order& order() {
  static Order o;
  return o;
}

EMU_RAW inline void make_fibers(int pool) {
  State& s = S();
  if (s.capacity[pool] < s.n) {
    s.pool[pool] = static_cast<Fiber*>(std::realloc(static_cast<void*>(s.pool[pool]), s.n * sizeof(Fiber)));
    for (int& c = s.capacity[pool]; c < s.n; c++) {
      s.pool[pool][c].stack = static_cast<char*>(std::malloc(kStack));
#if EMU_TSAN
      s.pool[pool][c].tsan = __tsan_create_fiber(0);
#endif
    }
  }
  s.fibers = s.pool[pool];
  for (int i = 0; i < s.n; i++) {
    Fiber& f = s.fibers[i];
    f.wait = kRun;
    f.parity = f.turn = 0;
    const unsigned u = static_cast<unsigned>(i);
    f.tid = {u % s.block.x, u / s.block.x % s.block.y, u / s.block.x / s.block.y};
    prepare(f.context, f.stack, entry);
  }
}

// Lets each warp go on whose lanes are all at the shuffle they name. True if any did.
EMU_RAW inline bool release_warps() {
  State& s = S();
  bool moved = false;
  for (int first = 0; first < s.n; first += 32) {
    const int end = std::min(s.n, first + 32);
    bool any = false, ready = true;
    int line = -1;
    for (int i = first; i < end; i++) {
      if (s.fibers[i].wait != kWarp) continue;
      any = true;
      if (line < 0) line = s.fibers[i].line;
      ready = ready && s.fibers[i].line == line;
      for (int j = first; j < end; j++)
        if ((s.fibers[i].mask >> (j % 32) & 1) && s.fibers[j].wait != kWarp) ready = false;
    }
    if (!any || !ready) continue;
    moved = true;
    for (int i = first; i < end; i++)
      if (s.fibers[i].wait == kWarp) s.fibers[i].wait = kRun;
  }
  return moved;
}

EMU_RAW inline int run_block(int pool) {
  State& s = S();
  make_fibers(pool);
  s.serial++;
  s.barriers++;
#if EMU_TSAN
  s.chunk = static_cast<char*>(keep(s.chunk_size));
  __tsan_release(&s.kernel_start);  // all that main did is before the block
#endif
  static int turn[1024];
  int alive = s.n;
  while (alive && !s.error) {
    order().fill(turn, s.n);
    for (int k = 0; k < s.n; k++) {
      Fiber& f = s.fibers[turn[k]];
      if (f.wait != kRun) continue;
      to_fiber(turn[k]);
      if (f.wait == kDone) alive--;
    }
    if (release_warps() || !alive) continue;
    int line = -1, arrived = 0;
    bool same = true;
    for (int i = 0; i < s.n; i++) {
      if (s.fibers[i].wait != kBlock) continue;
      arrived++;
      if (line < 0) line = s.fibers[i].line;
      same = same && s.fibers[i].line == line;
    }
    if (arrived != s.n || !same) {
      std::fprintf(stderr, "cuda_emu: block (%u,%u,%u): %d of %d threads at a barrier (line %d%s), %d exited\n", s.bid.x,
                   s.bid.y, s.bid.z, arrived, s.n, line, same ? "" : " and others", s.n - alive);
      fail(kDivergent, "divergent barrier or shuffle");
      break;
    }
    s.barriers++;
    for (int i = 0; i < s.n; i++) s.fibers[i].wait = kRun;
  }
  if (s.shared_bytes > kSharedLimit) fail(kTooMuchShared, "more than 48 KiB of static shared memory in a block");
#if !EMU_TSAN
  for (int i = 0; i < s.n_shared; i++) std::free(s.shared[i].at);
#endif
  s.chunk_size = kKeys + s.shared_bytes;  // of the blocks to come, as they declare the same
  s.n_shared = 0;
  s.shared_bytes = 0;
  return s.error;
}

EMU_RAW inline int run_grid(dim3 grid, dim3 block, void (*body)(void*), void* argument) {
  static std::mutex one_at_a_time;
  const std::lock_guard<std::mutex> lock(one_at_a_time);
  State& s = S();
  const uint64_t threads = uint64_t(block.x) * block.y * block.z, blocks = uint64_t(grid.x) * grid.y * grid.z;
  s.error = 0;
  if (!threads || !blocks || threads > 1024 || block.z > 64 || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
    return fail(kInvalidConfiguration, "invalid launch configuration");
  s.grid = grid;
  s.block = block;
  s.n = static_cast<int>(threads);
  s.body = body;
  s.argument = argument;
  s.chunk_size = kKeys + kSharedLimit + 4096;
#if EMU_TSAN
  s.main_tsan = __tsan_get_current_fiber();
#endif
  for (uint64_t k = 0; k < blocks && !s.error; k++) {
    const uint64_t b = order().mode ? blocks - 1 - k : k;
    s.bid = {static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y),
             static_cast<unsigned>(b / grid.x / grid.y)};
    run_block(static_cast<int>(k % kPools));
  }
#if EMU_TSAN
  __tsan_acquire(&s.kernel_end);
#endif
  for (size_t i = 0; i < s.n_kept; i++) std::free(s.kept[i]);
  s.n_kept = 0;
  return s.error;
}

EMU_RAW inline const uint3& tid() {
  State& s = S();
  return s.fibers[s.current].tid;
}
EMU_RAW inline const uint3& bid() { return S().bid; }
EMU_RAW inline int lane() { return S().current % 32; }

}  // namespace emu

#define threadIdx (emu::tid())
#define blockIdx (emu::bid())
#define blockDim (emu::S().block)
#define gridDim (emu::S().grid)
#define __syncthreads() emu::wait(emu::kBlock, __LINE__, 0)
#define __shfl_sync(mask, v, from) emu::shuffle(mask, v, (from) & 31, __LINE__)
#define __shfl_up_sync(mask, v, by) emu::shuffle(mask, v, emu::lane() - (by), __LINE__)
#define __shfl_down_sync(mask, v, by) emu::shuffle(mask, v, emu::lane() + (by), __LINE__)

#define ISG_SHARED(T, name, dims)   \
  typedef T name##_shared_t dims;   \
  name##_shared_t& name = *static_cast<name##_shared_t*>(emu::shared(__LINE__, sizeof(name##_shared_t)))

namespace isg {
template <class... P, class... A>
inline int32_t launch(void (*kernel)(P...), dim3 grid, dim3 block, void*, const A&... args) {
  auto call = [&] { kernel(args...); };
  return emu::run_grid(grid, block, [](void* c) { (*static_cast<decltype(call)*>(c))(); }, &call);
}
}  // namespace isg
