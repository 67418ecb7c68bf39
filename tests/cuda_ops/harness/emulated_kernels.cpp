// The kernel files, compiled as C++ for the emulator.
#include "cuda/bias_act.cu"
#include "cuda/upfirdn2d.cu"
