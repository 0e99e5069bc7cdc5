/* A thread of a network: an instance of its module, on its memory and a stack of its own. */

import {instance} from "./modules.js";

const inNode = typeof WorkerGlobalScope === "undefined";
const port = inNode ? (await import("node:worker_threads")).parentPort : globalThis;
const listen = (heard) => (inNode ? port.once("message", heard) : (port.onmessage = ({data}) => heard(data)));

listen(async ({module, memory, stack, storage}) => {
  let own;
  try {
    own = await instance(module, memory);
    own.__stack_pointer.value = stack;
    own.__wasm_init_tls(storage);
  } catch ({message}) {
    return port.postMessage({error: message});
  }
  port.postMessage({});
  try {
    own.sparsejax_help(); // never returns
  } catch {
    own.sparsejax_failed();
  }
});
