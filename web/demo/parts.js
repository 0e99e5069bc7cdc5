/* What both pages are built of: bars, switches, facts, times. */

import {load} from "../src/index.js";

const KEPT_TIMES = 21;

export const element = (id) => document.getElementById(id);
export const say = (text) => (element("state").textContent = text);
export const size = (bytes) => (bytes < 1e6 ? `${(bytes / 1e3).toFixed(0)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);

export function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

export async function json(url) {
  const answer = await fetch(url);
  return answer.ok ? answer.json() : undefined;
}

/** A network, the bytes of its file, and the times of its last runs. */
export async function fetched(url, words) {
  let bytes = 0;
  const onProgress = ({loaded, total}) => {
    bytes = loaded;
    say(`Loading ${words}: ${size(loaded)}${total ? ` of ${size(total)}` : ""}`);
  };
  const begin = performance.now();
  const net = await load(url, {onProgress});
  const times = new Times();
  const run = async (input) => Object.values(await times.of(() => net.run(input)))[0];
  return {info: net.info, bytes, times, run, ready: performance.now() - begin};
}

/** The last times of something that runs again and again. */
export class Times {
  #kept = [];

  async of(run) {
    const begin = performance.now();
    const value = await run();
    this.#kept.push(performance.now() - begin);
    this.#kept.splice(0, this.#kept.length - KEPT_TIMES);
    return value;
  }

  get median() {
    return [...this.#kept].sort((a, b) => a - b)[this.#kept.length >> 1];
  }

  get text() {
    return this.median === undefined ? "–" : this.median.toFixed(2);
  }
}

/** The five likeliest names with their chances. */
export function likeliest(logits, names) {
  const highest = Math.max(...logits), powers = Array.from(logits, (logit) => Math.exp(logit - highest));
  const sum = powers.reduce((total, power) => total + power);
  return powers.map((power, i) => [power / sum, names[i]]).sort(([a], [b]) => b - a).slice(0, 5);
}

export function showBars(list, ranked) {
  list.replaceChildren(
    ...ranked.map(([share, name]) => {
      const bar = make("i");
      bar.style.width = `${100 * share}%`;
      return make("li", {}, make("span", {textContent: name, title: name}), bar, make("b", {textContent: `${(100 * share).toFixed(1)} %`}));
    }),
  );
}

export function showFacts(list, facts) {
  list.replaceChildren(
    ...Object.entries(facts).map(([term, text]) => make("div", {}, make("dt", {textContent: term}), make("dd", {textContent: text}))),
  );
}

/** Buttons of which one is chosen. */
export function showSwitch(group, words, chosen, choose) {
  group.replaceChildren(
    ...Object.entries(words).map(([name, text]) =>
      make("button", {
        type: "button",
        textContent: text,
        role: "radio",
        ariaChecked: String(name === chosen),
        onclick: () => {
          showSwitch(group, words, name, choose);
          choose(name);
        },
      }),
    ),
  );
}

/** Pictures to click on; the first is shown at once. */
export async function showSamples(list, samples, show) {
  const buttons = samples.map(({src, label}) => {
    const image = make("img", {src, alt: label, title: label});
    return make("button", {type: "button", onclick: () => show(image)}, image);
  });
  list.replaceChildren(...buttons);
  const first = list.querySelector("img");
  await first?.decode();
  if (first) show(first);
}

/** The middle of a picture as a square of canvas; `part` of its shorter side. */
export function drawMiddle(pen, picture, part = 1) {
  const [width, height] = [picture.naturalWidth || picture.width, picture.naturalHeight || picture.height];
  const side = part * Math.min(width, height), to = pen.canvas;
  pen.imageSmoothingEnabled = side > to.width; // what is enlarged comes back as it was
  pen.imageSmoothingQuality = "high";
  pen.drawImage(picture, (width - side) / 2, (height - side) / 2, side, side, 0, 0, to.width, to.height);
}

/** Calls `work` again and again for as long as it is asked to, once at a time. */
export function worker(work) {
  let busy = false, again = false;
  return async () => {
    again = true;
    if (busy) return;
    busy = true;
    try {
      while (again) {
        again = false;
        await work();
      }
    } catch ({message}) {
      say(message);
    } finally {
      busy = false;
    }
  };
}
