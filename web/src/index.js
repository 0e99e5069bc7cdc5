/* load(url) -> a network whose run() never blocks the page: it lives in a worker where there are such. */

import {bytesOf} from "./modules.js";
import {networkOf} from "./network.js";

/** See index.d.ts. */
export async function load(source, {onProgress, worker = typeof Worker === "function"} = {}) {
  const bytes = await bytesOf(source, onProgress);
  if (worker) return inWorker(bytes);
  const network = await networkOf(bytes);
  return {info: network.info, run: async (inputs) => network.run(inputs), close() {}};
}

async function inWorker(bytes) {
  const thread = new Worker(new URL("./worker.js", import.meta.url), {type: "module"});
  const waiting = new Map();
  let next = 0;
  const settle = ({data: {id, value, error}}) => {
    const {resolve, reject} = waiting.get(id);
    waiting.delete(id);
    error ? reject(Object.assign(new Error(error.message), {name: error.name})) : resolve(value);
  };
  const fail = (event) => {
    for (const {reject} of waiting.values()) reject(new Error(`sparsejax's worker failed: ${event.message ?? "it could not be started"}.`));
    waiting.clear();
  };
  const ask = (message) =>
    new Promise((resolve, reject) => {
      waiting.set(next, {resolve, reject});
      thread.postMessage({id: next++, ...message});
    });
  thread.onmessage = settle;
  thread.onerror = fail;
  const close = () => {
    thread.terminate();
    fail({message: "the network was closed"});
  };
  try {
    const info = await ask({load: bytes});
    return {info, run: (inputs) => ask({run: inputs}), close};
  } catch (error) {
    close();
    throw error;
  }
}
