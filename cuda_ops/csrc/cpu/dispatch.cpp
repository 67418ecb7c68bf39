// Chooses the instruction set at run time, so that a build may be copied to any machine of its architecture.
#include <ATen/Parallel.h>

#include <cstdlib>
#include <cstring>
#include <new>

#include "../ops.h"
#include "machine.h"

namespace isg {

#define ISG_DECLARE(ns)                                                                \
  namespace ns {                                                                       \
  int64_t bias_act_workspace(const BiasActShape&, DType);                              \
  int32_t bias_act_forward(const BiasActForward&, DType, void*);                       \
  int32_t bias_act_backward(const BiasActBackward&, DType, void*);                     \
  int32_t bias_act_double_backward(const BiasActDoubleBackward&, DType, void*);        \
  int32_t upfirdn2d(const Upfirdn2d&, DType, void*);                                   \
  }                                                                                    \
  constexpr cpu::Kernels ns##_kernels{#ns + 4,                      false,                                           \
                                      ns::bias_act_workspace,       ns::bias_act_forward, ns::bias_act_backward,     \
                                      ns::bias_act_double_backward, ns::upfirdn2d};

namespace cpu {

struct Kernels {
  const char* name;
  bool round_natively;  // to bfloat16
  int64_t (*bias_act_workspace)(const BiasActShape&, DType);
  int32_t (*bias_act_forward)(const BiasActForward&, DType, void*);
  int32_t (*bias_act_backward)(const BiasActBackward&, DType, void*);
  int32_t (*bias_act_double_backward)(const BiasActDoubleBackward&, DType, void*);
  int32_t (*upfirdn2d)(const Upfirdn2d&, DType, void*);
};

}  // namespace cpu

#ifdef ISG_X86
ISG_DECLARE(cpu_avx512)
ISG_DECLARE(cpu_avx2)
namespace {
constexpr cpu::Kernels cpu_avx512bf16_kernels = [] {
  cpu::Kernels kernels = cpu_avx512_kernels;
  kernels.name = "avx512bf16";
  kernels.round_natively = true;
  return kernels;
}();
}  // namespace
#endif
ISG_DECLARE(cpu_base)

namespace cpu {

bool rounds_to_bfloat16;

namespace {

// The kernels called `name`, or the best if it is null; null if the machine can't run them or there are none.
const Kernels* find(const char* name) {
  const auto wanted = [name](const Kernels& k) { return !name || !std::strcmp(name, k.name); };
#ifdef ISG_X86
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  const bool avx512bf16 = avx512 && __builtin_cpu_supports("avx512bf16");
  if (avx512bf16 && wanted(cpu_avx512bf16_kernels)) return &cpu_avx512bf16_kernels;
  if (avx512 && wanted(cpu_avx512_kernels)) return &cpu_avx512_kernels;
  if (avx2 && wanted(cpu_avx2_kernels)) return &cpu_avx2_kernels;
#endif
  return wanted(cpu_base_kernels) ? &cpu_base_kernels : nullptr;
}

const Kernels* chosen;

// The only place that chooses, since what the kernels ask of the machine must change along with them.
bool use(const char* name) {
  const Kernels* found = find(name);
  if (!found) return false;
  chosen = found;
  rounds_to_bfloat16 = found->round_natively;
  return true;
}

[[maybe_unused]] const bool at_load = use(nullptr);

}  // namespace

int64_t bias_act_workspace(const BiasActShape& s, DType d) { return chosen->bias_act_workspace(s, d); }
int32_t bias_act_forward(const BiasActForward& p, DType d, void* s) { return chosen->bias_act_forward(p, d, s); }
int32_t bias_act_backward(const BiasActBackward& p, DType d, void* s) { return chosen->bias_act_backward(p, d, s); }
int32_t bias_act_double_backward(const BiasActDoubleBackward& p, DType d, void* s) {
  return chosen->bias_act_double_backward(p, d, s);
}
int32_t upfirdn2d(const Upfirdn2d& p, DType d, void* s) { return chosen->upfirdn2d(p, d, s); }

void parallel_range(int64_t n, int64_t grain, void (*f)(void*, int64_t, int64_t), void* context) {
  at::parallel_for(0, n, grain, [&](int64_t begin, int64_t end) { f(context, begin, end); });
}

void* allocate(size_t bytes) {
  void* memory = nullptr;
  if (posix_memalign(&memory, 64, bytes ? bytes : 64)) throw std::bad_alloc();
  return memory;
}
void release(void* memory) { std::free(memory); }

}  // namespace cpu
}  // namespace isg

// For Python, through ctypes.
extern "C" {
__attribute__((visibility("default"))) const char* isg_cpu_simd() { return isg::cpu::chosen->name; }
// Use the kernels of this name from now on, the best for null; 0 if there are none or the machine can't run them.
__attribute__((visibility("default"))) int isg_cpu_use(const char* name) { return isg::cpu::use(name); }
}
