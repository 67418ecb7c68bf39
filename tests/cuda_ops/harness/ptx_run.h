// What translated PTX runs on: the fibers of cuda_emu.h, and checks of each access: bounds of each shared variable,
// shared bytes never written, races on shared memory (exact, by byte), alignment of vector accesses. Linked with
// -fsanitize=address, each global access is looked up in ASan's map too, so that the large translated functions need
// no instrumentation of their own, which takes minutes to compile.
//
// -DPTX_PROFILE counts the instructions executed, 32-byte sectors and wavefronts of shared memory.
#pragma once
#include <cfenv>

#include "cuda_emu.h"

using i128 = __int128;
using u128 = unsigned __int128;
extern "C" void* __asan_region_is_poisoned(void*, size_t) __attribute__((weak));  // there when linked with ASan

struct Symbol {
  uint32_t offset, size;
};
using PtxFunction = void (*)(void**);
struct Register {
  Register(const char* name, PtxFunction f);
};
[[noreturn]] void ptx_fail(const char* what, int line, unsigned long long address);

// ----------------------------------------------------------------------------------------------------------- profile

#ifdef PTX_PROFILE
#include <map>
#include <set>
#include <tuple>
#include <unordered_map>
#include <vector>

// Accesses of a warp belong together if they are the n-th of the same instruction within a block.
struct Profile {
  uint64_t instructions[5] = {};  // integer, float, memory, control, shuffle
  uint64_t requests[4] = {};      // of warps: global load, global store, shared load, shared store
  uint64_t sectors[2] = {}, wavefronts = 0, block = ~0ull;
  std::map<uint32_t, uint64_t> widths[2];  // bytes a thread -> requests, of global memory
  struct Access {
    int lane;
    uint64_t address;
    uint32_t size;
  };
  std::unordered_map<uint64_t, uint32_t> nth;
  std::map<std::tuple<int, int, int, uint32_t>, std::vector<Access>> open;  // kind, warp, line, n

  void flush() {
    for (auto& [key, accesses] : open) {
      const int kind = std::get<0>(key);
      requests[kind]++;
      if (kind < 2) {
        std::set<uint64_t> touched;
        for (auto& a : accesses)
          for (uint64_t s = a.address / 32; s <= (a.address + a.size - 1) / 32; s++) touched.insert(s);
        sectors[kind] += touched.size();
        widths[kind][accesses[0].size]++;
        continue;
      }
      // Each bank serves one word a wavefront; wide accesses are served in groups of lanes.
      const int lanes = accesses[0].size <= 4 ? 32 : accesses[0].size == 8 ? 16 : 8;
      for (int first = 0; first < 32; first += lanes) {
        std::map<uint64_t, std::set<uint64_t>> banks;
        size_t most = 0;
        for (auto& a : accesses)
          if (a.lane >= first && a.lane < first + lanes)
            for (uint64_t w = a.address / 4; w <= (a.address + a.size - 1) / 4; w++) banks[w % 32].insert(w);
        for (auto& bank : banks) most = std::max(most, bank.second.size());
        wavefronts += most;
      }
    }
    open.clear();
    nth.clear();
  }
  void access(int kind, int line, uint64_t address, uint32_t size) {
    const int me = emu::S().current;
    if (block != emu::S().serial) {
      flush();
      block = emu::S().serial;
    }
    const uint32_t n = nth[uint64_t(line) << 12 | static_cast<uint64_t>(me)]++;
    open[{kind, me / 32, line, n}].push_back({me % 32, address, size});
  }
};
inline Profile g_profile;
#define I(kind) g_profile.instructions[kind]++;
#define PTX_ACCESS(kind, line, address, size) g_profile.access(kind, line, address, size)
#else
#define I(kind)
#define PTX_ACCESS(kind, line, address, size)
#endif

// ------------------------------------------------------------------------------------------------------------ memory

struct Shadow {
  uint64_t write_epoch, read_epoch;
  int writer, reader;  // -2: several readers
  bool written;
};
constexpr uint32_t kSharedMemory = 1024 + (56 << 10);
struct SharedMemory {
  uint64_t block = ~0ull;
  const Symbol* symbols = nullptr;
  int n = 0;
  char* memory = nullptr;
  Shadow* shadow = nullptr;
};
inline SharedMemory g_shared;

EMU_RAW inline void enter(const Symbol* symbols, int n) {
  if (!n || g_shared.block == emu::S().serial) return;
  if (!g_shared.memory) {
    g_shared.memory = static_cast<char*>(std::aligned_alloc(256, kSharedMemory));
    g_shared.shadow = static_cast<Shadow*>(std::malloc(kSharedMemory * sizeof(Shadow)));
  }
  g_shared.block = emu::S().serial;
  g_shared.symbols = symbols;
  g_shared.n = n;
  const uint32_t end = symbols[n - 1].offset + symbols[n - 1].size;
  std::memset(g_shared.memory, 0xFF, end);
  for (uint32_t i = 0; i < end; i++) g_shared.shadow[i] = {~0ull, ~0ull, -1, -1, false};
}

template <class T, int N, int STORE>
EMU_RAW inline T* shared_at(uint32_t a, int line) {
  constexpr uint32_t size = sizeof(T) * N;
  bool inside = false;
  for (int i = 0; i < g_shared.n; i++) {
    const Symbol& s = g_shared.symbols[i];
    inside |= a >= s.offset && a + size <= s.offset + s.size;
  }
  if (!inside) ptx_fail("shared access out of bounds", line, a);
  PTX_ACCESS(2 + STORE, line, a, size);
  if (a % size) ptx_fail("misaligned shared access", line, a);
  const uint64_t epoch = emu::S().barriers;
  const int me = emu::S().current;
  for (uint32_t i = a; i < a + size; i++) {
    Shadow& s = g_shared.shadow[i];
    if (s.write_epoch == epoch && s.writer != me)
      ptx_fail(STORE ? "race: two threads write shared memory between barriers"
                     : "race: shared read of a write not separated by a barrier", line, a);
    if (STORE && s.read_epoch == epoch && s.reader != me)
      ptx_fail("race: shared write after another thread's read, no barrier between", line, a);
    if (!STORE && !s.written) ptx_fail("read of shared memory never written", line, a);
    if (STORE) {
      s.write_epoch = epoch;
      s.writer = me;
      s.written = true;
    } else {
      s.reader = s.read_epoch == epoch && s.reader != me ? -2 : me;
      s.read_epoch = epoch;
    }
  }
  return reinterpret_cast<T*>(g_shared.memory + a);
}

template <class T, int N, int STORE>
inline T* global_at(uint64_t a, int line) {
  PTX_ACCESS(STORE, line, a, static_cast<uint32_t>(sizeof(T) * N));
  if (a % (sizeof(T) * N)) ptx_fail("misaligned global access", line, a);
  if (__asan_region_is_poisoned && __asan_region_is_poisoned(reinterpret_cast<void*>(a), sizeof(T) * N))
    ptx_fail("global access out of bounds", line, a);
  return reinterpret_cast<T*>(a);
}

// ---------------------------------------------------------------------------------------------------- values, warps

template <class D, class S>
inline D bits(S s) {
  if constexpr (sizeof(D) == sizeof(S)) {
    D d;
    std::memcpy(&d, &s, sizeof d);
    return d;
  } else {
    return static_cast<D>(s);
  }
}
template <class R, class T>
inline void set(R& r, T v) {
  if constexpr (sizeof(R) == sizeof(T)) {
    std::memcpy(&r, &v, sizeof r);
  } else if constexpr (std::is_same_v<T, _Float16>) {
    uint16_t h;
    std::memcpy(&h, &v, 2);
    r = h;
  } else {
    r = static_cast<R>(v);  // zero- or sign-extends, by v's own type
  }
}
template <class T>
inline T at(void* p, int offset) {
  T t;
  std::memcpy(&t, static_cast<char*>(p) + offset, sizeof t);
  return t;
}
template <class T>
inline bool unordered(T a, T b) {
  return a != a || b != b;
}
template <class T>
inline T shl(T v, uint32_t n) {
  return n >= sizeof(T) * 8 ? T(0) : T(v << n);
}
template <class T>
inline T shr(T v, uint32_t n) {
  return n >= sizeof(T) * 8 ? (std::is_signed_v<T> && v < 0 ? T(-1) : T(0)) : T(v >> n);
}
template <class T>
inline T div_checked(T a, T b, int line) {
  if (b == 0) ptx_fail("division by zero", line, 0);
  return a / b;
}
template <class T>
inline T rem_checked(T a, T b, int line) {
  if (b == 0) ptx_fail("division by zero", line, 0);
  return a % b;
}
inline uint32_t insert_bits(uint32_t from, uint32_t into, uint32_t position, uint32_t length) {
  const uint64_t mask = ((uint64_t(1) << (length & 255)) - 1) << (position & 255);
  return static_cast<uint32_t>((into & ~mask) | (uint64_t(from) << (position & 255) & mask));
}
inline uint32_t extract_bits(uint32_t from, uint32_t position, uint32_t length) {
  return static_cast<uint32_t>(uint64_t(from) >> (position & 255) & ((uint64_t(1) << (length & 255)) - 1));
}
inline float saturate(float v) { return v > 1.f ? 1.f : v > 0.f ? v : 0.f; }
template <class T>
inline T flushed(T v) {
  return std::fpclassify(v) == FP_SUBNORMAL ? std::copysign(T(0), v) : v;
}
__attribute__((noinline)) inline float fma_rounded(int mode, float a, float b, float c) {
  volatile float x = a, y = b, z = c;
  const int before = std::fegetround();
  std::fesetround(mode);
  volatile float r = std::fma(x, y, z);
  std::fesetround(before);
  return r;
}

// shfl.sync with operands b and c as PTX defines them: c holds the width of segments and the last lane to read.
inline uint32_t shuffle(uint32_t mask, uint32_t v, int from, bool valid, bool* out, int line) {
  *out = valid;
  return emu::shuffle(mask, v, valid ? from : emu::lane(), line);
}
inline uint32_t shuffle_idx(uint32_t mask, uint32_t v, uint32_t b, uint32_t c, bool* valid, int line) {
  const int segment = static_cast<int>(c >> 8 & 31), lane = emu::lane();
  const int least = lane & segment, most = least | (static_cast<int>(c & 31) & ~segment);
  const int from = least | (static_cast<int>(b & 31) & ~segment);
  return shuffle(mask, v, from, from <= most, valid, line);
}
inline uint32_t shuffle_up(uint32_t mask, uint32_t v, uint32_t b, uint32_t c, bool* valid, int line) {
  const int segment = static_cast<int>(c >> 8 & 31), lane = emu::lane();
  const int most = (lane & segment) | (static_cast<int>(c & 31) & ~segment), from = lane - static_cast<int>(b & 31);
  return shuffle(mask, v, from, from >= most, valid, line);
}
inline uint32_t shuffle_down(uint32_t mask, uint32_t v, uint32_t b, uint32_t c, bool* valid, int line) {
  const int segment = static_cast<int>(c >> 8 & 31), lane = emu::lane();
  const int most = (lane & segment) | (static_cast<int>(c & 31) & ~segment), from = lane + static_cast<int>(b & 31);
  return shuffle(mask, v, from, from <= most, valid, line);
}
inline uint32_t shuffle_bfly(uint32_t mask, uint32_t v, uint32_t b, uint32_t c, bool* valid, int line) {
  const int segment = static_cast<int>(c >> 8 & 31), lane = emu::lane();
  const int most = (lane & segment) | (static_cast<int>(c & 31) & ~segment), from = lane ^ static_cast<int>(b & 31);
  return shuffle(mask, v, from, from <= most, valid, line);
}
