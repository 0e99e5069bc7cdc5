// What each network takes, in Node and in a browser alike: outputs first, then calls in turns.
const CALLS = 30;
const SLOW = 400; // ms: what takes longer takes part in the first turns alone
const SLOW_CALLS = 3;

/**
 * Milliseconds, from the bytes to the first result too, errors of outputs, and times within a turn
 * over those of the fastest peer, by name.
 *
 * @param read the bytes of a file of the benchmark's folder.
 * @param ours names of files of sparsejax, the dense one first.
 */
export async function compared({read, ours, load, ort, tf}) {
  const floats = async (name) => new Float32Array(await read(name));
  const input = await floats("input"), planes = await floats("input.nchw"), dense = await read("dense.onnx");
  const layers = JSON.parse(new TextDecoder().decode(await read("layers.json"))), weights = await floats("layers.bin");
  const makers = {};
  for (const name of ours) {
    const file = new Uint8Array(await read(name));
    makers[name] = () => ofOurs(load, file, input);
  }
  makers["onnxruntime-web"] = () => ofOnnxruntime(ort, dense, planes);
  for (const backend of ["wasm", "cpu"]) makers[`tfjs-${backend}`] = () => ofTensorflow(tf, backend, layers, weights, input);
  const runs = {}, errors = {}, firsts = {};
  for (const [name, make] of Object.entries(makers)) {
    const begin = performance.now();
    runs[name] = await make();
    const found = await runs[name]();
    firsts[name] = performance.now() - begin;
    errors[name] = difference(found, await floats(`${ours.includes(name) ? name : ours[0]}.expected`));
  }
  return summary(await timed(runs), errors, firsts, ours);
}

async function ofOurs(load, file, input) {
  const net = await load(file, {worker: false});
  return async () => Object.values(await net.run(input))[0];
}

async function ofOnnxruntime(ort, file, planes) {
  ort.env.wasm.numThreads = 1;
  const session = await ort.InferenceSession.create(new Uint8Array(file), {executionProviders: ["wasm"]});
  const side = Math.sqrt(planes.length / 3);
  const feeds = {[session.inputNames[0]]: new ort.Tensor("float32", planes, [1, 3, side, side])};
  return async () => (await session.run(feeds))[session.outputNames[0]].data;
}

async function ofTensorflow(tf, backend, layers, weights, input) {
  await tf.setBackend(backend);
  await tf.ready();
  const tensor = ({begin, shape}) => tf.tensor(weights.slice(begin, begin + shape.reduce((a, b) => a * b)), shape);
  const own = layers.map((layer) => (layer.weights ? {...layer, filter: tensor(layer.weights), bias: tensor(layer.bias)} : layer));
  const side = Math.sqrt(input.length / 3);
  return async () => {
    await tf.setBackend(backend);
    const output = tf.tidy(() => own.reduce((values, layer) => [...values, apply(tf, layer, values)], [tf.tensor(input, [1, side, side, 3])]).at(-1));
    const data = await output.data();
    output.dispose();
    return data;
  };
}

function apply(tf, {op, inputs, filter, bias, strides, padding, activation}, values) {
  const [x, residual] = inputs.map((i) => values[i]);
  if (op === "mean") return tf.mean(x, [1, 2]);
  const named = {identity: "linear"}[activation] ?? activation;
  if (op === "linear") return tf.fused.matMul({a: x, b: filter, bias, activation: named});
  const options = {x, filter, strides, pad: padOf(x, filter, strides, padding), bias, activation: residual ? "linear" : named};
  const y = op === "conv" ? tf.fused.conv2d(options) : tf.fused.depthwiseConv2d(options);
  if (!residual) return y;
  const sum = tf.add(y, residual);
  return named === "linear" ? sum : tf[named](sum);
}

/** "same" where that is meant, for which the kernels are made. */
function padOf(x, filter, strides, padding) {
  const same = padding.every(([before, behind], i) => {
    const size = x.shape[1 + i], out = Math.ceil(size / strides[i]);
    const all = Math.max((out - 1) * strides[i] + filter.shape[i] - size, 0);
    return before === Math.floor(all / 2) && before + behind === all;
  });
  return same ? "same" : [[0, 0], ...padding, [0, 0]];
}

const difference = (found, wanted) => {
  const largest = wanted.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  return wanted.reduce((most, value, i) => Math.max(most, Math.abs(value - found[i])), 0) / largest;
};

async function timed(runs) {
  const times = Object.fromEntries(Object.keys(runs).map((name) => [name, []]));
  for (let call = 0; call < CALLS; call++) {
    for (const [name, run] of Object.entries(runs)) {
      if (call >= SLOW_CALLS && times[name][0] > SLOW) continue;
      await run(); // its weights into the cache
      const begin = performance.now();
      await run();
      times[name].push(performance.now() - begin);
    }
  }
  return times;
}

function summary(times, errors, firsts, ours) {
  const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];
  const peers = Object.keys(times).filter((name) => !ours.includes(name));
  const best = peers.reduce((a, b) => (median(times[a]) <= median(times[b]) ? a : b));
  const row = ([name, own]) => [name, {ms: median(own), of_best_peer: median(own.map((time, i) => time / times[best][i])), first_ms: firsts[name], error: errors[name]}];
  return {best_peer: best, ...Object.fromEntries(Object.entries(times).map(row))};
}
