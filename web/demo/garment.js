/* Draw or choose a garment; the chosen network of `make demo` names it. */

import {drawMiddle, element, fetched, json, likeliest, say, showBars, showFacts, showSamples, showSwitch, size, worker} from "./parts.js";

const NETWORKS = {sparse: "90 % zeros", dense: "dense"};
const canvas = element("canvas"), pen = canvas.getContext("2d", {willReadFrequently: true});
const nets = {};
let known, chosen = "sparse", last;

export async function start(files) {
  known = await json(`${files}networks.json`);
  if (!known) throw new Error("There is no network of garments yet: run `make demo` first, then load this page again.");
  wipe();
  for (const [name, words] of Object.entries(NETWORKS)) nets[name] = await fetched(`${files}${name}.sjx`, words);
  say(`Draw a garment, choose one, or drop a picture: it knows the ten kinds of ${known.dataset}.`);
  showSwitch(element("networks"), NETWORKS, chosen, (name) => {
    chosen = name;
    ask();
  });
  const samples = (await json(`${files}results.json`))?.samples.first ?? [];
  await showSamples(element("samples"), samples.map(({png, label}) => ({src: `data:image/png;base64,${png}`, label})), show);
}

export function show(picture) {
  wipe();
  pen.filter = element("invert").checked ? "grayscale(1) invert(1)" : "grayscale(1)";
  drawMiddle(pen, picture);
  pen.filter = "none";
  ask();
}

const ask = worker(async () => {
  const net = nets[chosen];
  if (!net) return;
  const input = pixels();
  for (let call = 0; call < 3; call++) {
    const logits = await net.run(input);
    if (call === 0) showBars(element("bars"), likeliest(logits, known.classes));
  }
  const {kernels, threads} = net.info;
  showFacts(element("facts"), {
    "ms a picture": net.times.text,
    "file": size(net.bytes),
    "kernels": `${kernels} SIMD, ${threads} thread${threads > 1 ? "s" : ""}`,
  });
});

function wipe() {
  pen.fillStyle = "#000";
  pen.fillRect(0, 0, canvas.width, canvas.height);
}

/** The canvas as the network's input: grey bytes as floats. */
function pixels() {
  const small = new OffscreenCanvas(known.size, known.size), brush = small.getContext("2d");
  brush.imageSmoothingQuality = "high";
  brush.drawImage(canvas, 0, 0, known.size, known.size);
  const {data} = brush.getImageData(0, 0, known.size, known.size);
  return Float32Array.from({length: known.size ** 2}, (_, i) => 0.299 * data[4 * i] + 0.587 * data[4 * i + 1] + 0.114 * data[4 * i + 2]);
}

function stroke(event) {
  const {left, top, width} = canvas.getBoundingClientRect(), scale = canvas.width / width;
  const [x, y] = [event.clientX - left, event.clientY - top].map((value) => value * scale);
  Object.assign(pen, {lineWidth: 18, lineCap: "round", strokeStyle: "#fff"});
  pen.beginPath();
  pen.moveTo(...(last ?? [x, y]));
  pen.lineTo(x, y);
  pen.stroke();
  last = [x, y];
  ask();
}
canvas.onpointerdown = (event) => {
  canvas.setPointerCapture(event.pointerId);
  stroke(event);
};
canvas.onpointermove = (event) => event.buttons && stroke(event);
canvas.onpointerup = () => (last = undefined);
element("clear").onclick = () => {
  wipe();
  ask();
};
