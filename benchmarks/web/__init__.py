"""WebAssembly in Node: files of `sj.save` against onnxruntime-web."""
