// Stands in for libcudart under the unchanged objects that nvcc made: takes their registrations and launches, and runs
// the translated PTX of the same objects on the CPU.
#include <map>
#include <string>

#include "ptx_run.h"

namespace {

std::map<std::string, PtxFunction>& functions() {
  static std::map<std::string, PtxFunction> t;
  return t;
}
std::map<const void*, std::string>& kernels() {
  static std::map<const void*, std::string> t;
  return t;
}
struct Call {
  PtxFunction f;
  void** arguments;
};
struct Configuration {
  dim3 grid, block;
  size_t shared;
  void* stream;
} configuration;
int last_error;

}  // namespace

Register::Register(const char* name, PtxFunction f) { functions()[name] = f; }

void ptx_fail(const char* what, int line, unsigned long long address) {
  const uint3 t = emu::tid(), b = emu::bid();
  std::fprintf(stderr, "ptx: %s (line %d of the translation, address %llu, thread %u,%u, block %u,%u,%u)\n", what, line,
               address, t.x, t.y, b.x, b.y, b.z);
  std::exit(70);
}

extern "C" {
void** __cudaRegisterFatBinary(void*) {
  static void* handle;
  return &handle;
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
void __cudaRegisterFunction(void**, const char* host, char*, const char* name, int, void*, void*, void*, void*, int*) {
  kernels()[host] = name;  // looked up at launch, as the objects' constructors run in any order
}
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, void* stream) {
  configuration = {grid, block, shared, stream};
  return 0;
}
int __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
  *grid = configuration.grid;
  *block = configuration.block;
  *shared = configuration.shared;
  *static_cast<void**>(stream) = configuration.stream;
  return 0;
}
int __cudaGetKernel(void** kernel, const void* host) {
  *kernel = const_cast<void*>(host);
  return 0;
}
int __cudaLaunchKernel(void* kernel, dim3 grid, dim3 block, void** arguments, size_t, void*) {
  const auto it = functions().find(kernels()[kernel]);
  if (it == functions().end()) {
    std::fprintf(stderr, "fake_cudart: %s isn't translated\n", kernels()[kernel].c_str());
    return last_error = 98;  // cudaErrorInvalidDeviceFunction
  }
  Call call{it->second, arguments};
  return last_error = emu::run_grid(
             grid, block,
             [](void* p) {
               auto* c = static_cast<Call*>(p);
               c->f(c->arguments);
             },
             &call);
}
int cudaLaunchKernel(const void* kernel, dim3 grid, dim3 block, void** arguments, size_t shared, void* stream) {
  return __cudaLaunchKernel(const_cast<void*>(kernel), grid, block, arguments, shared, stream);
}
int cudaGetLastError() {
  const int e = last_error;
  last_error = 0;
  return e;
}
}
