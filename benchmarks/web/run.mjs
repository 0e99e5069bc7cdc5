// node run.mjs FOLDER FILE...: what each file and dense.onnx take, in turns, as JSON.
import {readFile} from "node:fs/promises";
import {createRequire} from "node:module";
import {basename, join} from "node:path";

import {load} from "../../web/src/index.js";

const CALLS = 30;
const [folder, ...files] = process.argv.slice(2);
const floats = async (path) => new Float32Array(Uint8Array.from(await readFile(path)).buffer);
const input = await floats(join(folder, "input"));
const runs = {}, expected = {};
for (const file of files) {
  const net = await load(file);
  runs[basename(file)] = async () => Object.values(await net.run(input))[0];
  expected[basename(file)] = await floats(`${file}.expected`);
}
const ort = createRequire(join(folder, "package.json"))("onnxruntime-web/wasm");
ort.env.wasm.numThreads = 1;
const session = await ort.InferenceSession.create(new Uint8Array(await readFile(join(folder, "dense.onnx"))), {executionProviders: ["wasm"]});
const planes = await floats(join(folder, "input.nchw"));
const side = Math.sqrt(planes.length / 3);
const feeds = {[session.inputNames[0]]: new ort.Tensor("float32", planes, [1, 3, side, side])};
runs.onnxruntime = async () => (await session.run(feeds))[session.outputNames[0]].data;
expected.onnxruntime = Object.values(expected)[0]; // the first file is the dense network

const errors = {};
for (const [name, run] of Object.entries(runs)) {
  const found = await run(), wanted = expected[name];
  const largest = wanted.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  errors[name] = wanted.reduce((most, value, i) => Math.max(most, Math.abs(value - found[i])), 0) / largest;
}
const times = Object.fromEntries(Object.keys(runs).map((name) => [name, []]));
for (let call = 0; call < CALLS; call++) {
  for (const [name, run] of Object.entries(runs)) {
    await run(); // its weights into the cache
    const begin = performance.now();
    await run();
    times[name].push(performance.now() - begin);
  }
}
const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];
const result = Object.entries(times).map(([name, own]) => {
  const ratios = own.map((time, i) => time / times.onnxruntime[i]);
  return [name, {ms: median(own), of_onnxruntime: median(ratios), error: errors[name]}];
});
console.log(JSON.stringify(Object.fromEntries(result)));
