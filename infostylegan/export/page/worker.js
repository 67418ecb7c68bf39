"use strict";
// The generator, away from the page's own thread, so that sliders stay smooth.
importScripts("ort.wasm.min.js");

const at = (name) => new URL(name, self.location.href).href;
ort.env.wasm.numThreads = 1; // more would need headers that not every static server sends
ort.env.wasm.wasmPaths = { mjs: at("ort-wasm-simd-threaded.js"), wasm: at("ort-wasm-simd-threaded.wasm") };

const session = ort.InferenceSession.create(at("generator.onnx"), { executionProviders: ["wasm"] });
session.then(
  () => postMessage({ ready: true }),
  (error) => postMessage({ failed: String(error && error.message || error) }),
);

onmessage = async ({ data }) => {
  try {
    const model = await session;
    const started = performance.now();
    const out = await model.run({
      z: new ort.Tensor("float32", data.z, [1, data.z.length]),
      c: new ort.Tensor("float32", data.c, [1, data.c.length]),
      label: new ort.Tensor("int64", BigInt64Array.of(BigInt(data.label)), [1]),
      psi: new ort.Tensor("float32", Float32Array.of(data.psi), []),
    });
    const image = out.image;
    postMessage({ image: image.data, dims: image.dims, ms: performance.now() - started });
  } catch (error) {
    postMessage({ failed: String(error && error.message || error) });
  }
};
