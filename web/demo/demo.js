/* Draw or choose a garment; the chosen network names it. */

import {load} from "../src/index.js";

const FILES = new URLSearchParams(location.search).get("files") ?? "../../demo-output/";
const NETWORKS = {sparse: "90 % zeros", dense: "dense"};
const KEPT_TIMES = 21;
const element = (id) => document.getElementById(id);
const canvas = element("canvas"), pen = canvas.getContext("2d", {willReadFrequently: true});
const nets = {}, times = {};
let known, chosen = "sparse", busy = false, again = false;

start().catch(({message}) => (element("state").textContent = message));

async function start() {
  const answer = await fetch(`${FILES}networks.json`);
  if (!answer.ok) throw new Error("There is no network yet: run `make demo` first, then load this page again.");
  known = await answer.json();
  element("about").append(` It knows the ten kinds of ${known.dataset}.`);
  wipe();
  for (const name of Object.keys(NETWORKS)) {
    const onProgress = ({loaded, total}) => {
      element("state").textContent = `Loading ${NETWORKS[name]}: ${kilobytes(loaded)}${total ? ` of ${kilobytes(total)}` : ""}`;
      nets[`${name} bytes`] = loaded;
    };
    nets[name] = await load(`${FILES}${name}.sjx`, {onProgress});
    times[name] = [];
  }
  element("state").textContent = "Draw a garment, choose one, or drop a picture.";
  showNetworks();
  await showSamples();
}

function showNetworks() {
  element("networks").replaceChildren(
    ...Object.entries(NETWORKS).map(([name, words]) => {
      const button = document.createElement("button");
      Object.assign(button, {type: "button", textContent: words, role: "radio", ariaChecked: String(name === chosen)});
      button.onclick = () => {
        chosen = name;
        showNetworks();
        ask();
      };
      return button;
    }),
  );
}

async function showSamples() {
  const results = await fetch(`${FILES}results.json`).then((answer) => (answer.ok ? answer.json() : undefined));
  const samples = results?.samples.first ?? [];
  element("samples").replaceChildren(
    ...samples.map(({png, label}) => {
      const button = document.createElement("button"), image = new Image();
      image.src = `data:image/png;base64,${png}`;
      Object.assign(image, {alt: label, title: label});
      button.type = "button";
      button.append(image);
      button.onclick = () => show(image);
      return button;
    }),
  );
  if (samples.length) {
    const first = element("samples").querySelector("img");
    await first.decode();
    show(first);
  }
}

function wipe() {
  pen.fillStyle = "#000";
  pen.fillRect(0, 0, canvas.width, canvas.height);
}

/** The middle square of a picture. */
function show(picture) {
  const side = Math.min(picture.naturalWidth || picture.width, picture.naturalHeight || picture.height);
  const [left, top] = [(picture.naturalWidth || picture.width) - side, (picture.naturalHeight || picture.height) - side].map((rest) => rest / 2);
  wipe();
  pen.filter = element("invert").checked ? "grayscale(1) invert(1)" : "grayscale(1)";
  pen.imageSmoothingEnabled = side > canvas.width; // what is enlarged comes back as it was
  pen.drawImage(picture, left, top, side, side, 0, 0, canvas.width, canvas.height);
  pen.filter = "none";
  ask();
}

/** The canvas as the network's input: grey bytes as floats. */
function pixels() {
  const small = new OffscreenCanvas(known.size, known.size), brush = small.getContext("2d");
  brush.imageSmoothingQuality = "high";
  brush.drawImage(canvas, 0, 0, known.size, known.size);
  const {data} = brush.getImageData(0, 0, known.size, known.size);
  return Float32Array.from({length: known.size ** 2}, (_, i) => 0.299 * data[4 * i] + 0.587 * data[4 * i + 1] + 0.114 * data[4 * i + 2]);
}

/** Asks the network, once more if the picture has changed meanwhile. */
async function ask() {
  if (!nets[chosen]) return;
  if (busy) {
    again = true;
    return;
  }
  busy = true;
  do {
    again = false;
    const name = chosen, input = pixels();
    for (let call = 0; call < 3; call++) {
      const begin = performance.now();
      const [logits] = Object.values(await nets[name].run(input));
      times[name].push(performance.now() - begin);
      if (call === 0) showAnswer(logits);
    }
    times[name].splice(0, times[name].length - KEPT_TIMES);
    showFacts(name);
  } while (again);
  busy = false;
}

function showAnswer(logits) {
  const highest = Math.max(...logits), powers = [...logits].map((logit) => Math.exp(logit - highest));
  const sum = powers.reduce((total, power) => total + power);
  const ranked = powers.map((power, i) => [power / sum, known.classes[i]]).sort(([a], [b]) => b - a).slice(0, 5);
  element("bars").replaceChildren(
    ...ranked.map(([share, name]) => {
      const line = document.createElement("li"), bar = document.createElement("i"), number = document.createElement("b");
      bar.style.width = `${100 * share}%`;
      number.textContent = `${(100 * share).toFixed(1)} %`;
      line.append(name, bar, number);
      return line;
    }),
  );
}

function showFacts(name) {
  const sorted = [...times[name]].sort((a, b) => a - b);
  const facts = {
    "ms a picture": sorted[sorted.length >> 1].toFixed(2),
    "file": kilobytes(nets[`${name} bytes`]),
    "kernels": `${nets[name].info.kernels} SIMD, 1 thread`,
  };
  element("facts").replaceChildren(
    ...Object.entries(facts).map(([term, text]) => {
      const [box, dt, dd] = ["div", "dt", "dd"].map((tag) => document.createElement(tag));
      dt.textContent = term;
      dd.textContent = text;
      box.append(dt, dd);
      return box;
    }),
  );
}

const kilobytes = (bytes) => `${(bytes / 1e3).toFixed(0)} kB`;

function stroke(event) {
  const {left, top, width} = canvas.getBoundingClientRect(), scale = canvas.width / width;
  const [x, y] = [event.clientX - left, event.clientY - top].map((value) => value * scale);
  Object.assign(pen, {lineWidth: 18, lineCap: "round", strokeStyle: "#fff"});
  pen.beginPath();
  pen.moveTo(...(stroke.last ?? [x, y]));
  pen.lineTo(x, y);
  pen.stroke();
  stroke.last = [x, y];
  ask();
}
canvas.onpointerdown = (event) => {
  canvas.setPointerCapture(event.pointerId);
  stroke(event);
};
canvas.onpointermove = (event) => event.buttons && stroke(event);
canvas.onpointerup = () => (stroke.last = undefined);
element("clear").onclick = () => {
  wipe();
  ask();
};
const open = async (file) => show(await createImageBitmap(file));
element("file").onchange = ({target}) => target.files[0] && open(target.files[0]);
document.ondragover = (event) => event.preventDefault();
document.ondrop = (event) => {
  event.preventDefault();
  const [file] = event.dataTransfer.files;
  if (file?.type.startsWith("image/")) open(file);
  else element("state").textContent = "That is no picture.";
};
