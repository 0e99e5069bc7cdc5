/* A network in one instance of the runtime: the C interface of sparsejax.h, in JavaScript's words. */

import {canShare, instance, kernelsHere, moduleOf, sharedMemory, workerAt} from "./modules.js";

const ANY_BATCH = -1n;
const POINTER = 4, PORT = 24, BUFFER = 8;
const STACK = 1 << 20; // bytes of a thread

/** The network in the bytes of a file that sparsejax.save wrote; with several threads where these can share memory. */
export async function networkOf(bytes, threads = 1) {
  const kernels = kernelsHere(), several = threads > 1 && canShare();
  const module = await moduleOf(several ? `${kernels}-threads` : kernels);
  const memory = several ? sharedMemory() : undefined;
  const exports = await instance(module, memory);
  exports._initialize();
  const network = new Network({memory, ...exports}, kernels, bytes);
  if (several) await network.share(module, threads);
  return network;
}

/** Resolves when a helper began, and rejects when it cannot. */
function answered(helper, message) {
  return new Promise((resolve, reject) => {
    const failed = (error) => reject(error.message ? error : new Error("it could not be started"));
    const heard = ({error}) => (error ? reject(new Error(error)) : resolve());
    if (helper.on) helper.on("message", heard).on("error", failed);
    else Object.assign(helper, {onmessage: ({data}) => heard(data), onerror: failed});
    helper.postMessage(message);
  });
}

class Network {
  #c;
  #model;
  #batch = 0;
  #buffers; // pointers of inputs and outputs for the batch that ran last
  #broken = "";
  #helpers = []; // workers

  constructor(exports, kernels, bytes) {
    this.#c = exports;
    const file = this.#copied(bytes), handle = this.#memory(POINTER);
    const status = this.#guarded(() => exports.sparsejax_load(file, bytes.length, handle));
    exports.free(file);
    if (status) throw this.#error();
    this.#model = this.#view().getUint32(handle, true);
    exports.free(handle);
    const inputs = this.#ports(exports.sparsejax_num_inputs(this.#model), exports.sparsejax_input);
    const outputs = this.#ports(exports.sparsejax_num_outputs(this.#model), exports.sparsejax_output);
    this.info = {kernels, threads: 1, inputs, outputs};
  }

  /** Starts the other threads of `threads`. */
  async share(module, threads) {
    const {memory, __tls_size: storage} = this.#c;
    const begin = async () => {
      const stack = this.#memory(STACK) + STACK, own = this.#memory(storage.value + 16);
      const helper = await workerAt(new URL("./helper.js", import.meta.url));
      this.#helpers.push(helper);
      await answered(helper, {module, memory, stack, storage: (own + 15) & ~15});
      helper.unref?.(); // Node may end when nothing else is left to do
    };
    const begun = await Promise.allSettled(Array.from({length: threads - 1}, begin));
    const failed = begun.find(({reason}) => reason);
    if (failed) {
      this.close();
      throw new Error(`sparsejax got no further thread: ${failed.reason.message}`);
    }
    if (this.#c.sparsejax_set_threads(this.#model, threads)) throw this.#error();
    this.info.threads = threads;
  }

  /** Ends the other threads. */
  close() {
    for (const helper of this.#helpers) helper.terminate();
    this.#broken = "the network was closed";
  }

  /** The outputs by name for inputs by name, Float32Arrays both. */
  run(inputs) {
    const arrays = this.#ordered(inputs);
    const batch = this.#batchOf(arrays);
    this.#reserve(batch);
    const {inputAt, outputAt, inputTable, outputTable} = this.#buffers;
    arrays.forEach((array, i) => new Float32Array(this.#c.memory.buffer, inputAt[i], array.length).set(array));
    const status = this.#guarded(() => this.#c.sparsejax_run(this.#model, BigInt(batch), inputTable, outputTable));
    if (status) throw this.#error();
    const outputs = {};
    this.info.outputs.forEach((port, i) => {
      outputs[port.name] = new Float32Array(this.#c.memory.buffer, outputAt[i], batch * port.floats).slice();
    });
    return outputs;
  }

  /** The inputs in their order, each one a Float32Array that is named. */
  #ordered(inputs) {
    const names = this.info.inputs.map((port) => port.name);
    const own = ArrayBuffer.isView(inputs) && names.length === 1 ? {[names[0]]: inputs} : inputs;
    const unknown = Object.keys(own ?? {}).filter((name) => !names.includes(name));
    const missing = names.filter((name) => !(own?.[name] instanceof Float32Array));
    if (unknown.length || missing.length) {
      throw new TypeError(`run needs a Float32Array for each of ${names.join(", ")}; ` + (missing.length ? `${missing.join(", ")} is none.` : `there is no ${unknown.join(", ")}.`));
    }
    return names.map((name) => own[name]);
  }

  #batchOf(arrays) {
    const sizes = this.info.inputs.map((port, i) => arrays[i].length / port.floats);
    const free = this.info.inputs[0].shape[0] === null;
    const batch = free ? sizes[0] : 1;
    const wrong = sizes.findIndex((size) => size !== batch || !(Number.isInteger(size) && size > 0));
    if (wrong >= 0) {
      const port = this.info.inputs[wrong];
      throw new RangeError(`run needs ${port.name} of shape (${port.shape.map((size) => size ?? "any").join(", ")}), ${port.floats} floats an item and as many items as the others, got ${arrays[wrong].length} floats.`);
    }
    return batch;
  }

  /** Memory for a batch; kept until another one comes. */
  #reserve(batch) {
    if (this.#batch === batch) return;
    const {inputs, outputs} = this.info;
    const place = (ports) => ports.map((port) => this.#memory(4 * batch * port.floats));
    this.#release();
    const inputAt = place(inputs), outputAt = place(outputs);
    const table = (ports, at) => {
      const begin = this.#memory(BUFFER * Math.max(ports.length, 1));
      ports.forEach((port, i) => {
        this.#view().setUint32(begin + BUFFER * i, at[i], true);
        this.#view().setUint32(begin + BUFFER * i + POINTER, batch * port.floats, true);
      });
      return begin;
    };
    this.#buffers = {inputAt, outputAt, inputTable: table(inputs, inputAt), outputTable: table(outputs, outputAt)};
    this.#batch = batch;
  }

  #release() {
    if (!this.#buffers) return;
    const {inputAt, outputAt, inputTable, outputTable} = this.#buffers;
    for (const at of [...inputAt, ...outputAt, inputTable, outputTable]) this.#c.free(at);
    this.#buffers = undefined;
    this.#batch = 0;
  }

  #ports(count, describe) {
    const at = this.#memory(PORT);
    const ports = Array.from({length: count}, (_, i) => {
      if (describe(this.#model, i, at)) throw this.#error();
      const view = this.#view(), shapeAt = view.getUint32(at + 8, true);
      const sizes = Array.from({length: view.getInt32(at + 4, true)}, (_, axis) => view.getBigInt64(shapeAt + 8 * axis, true));
      const shape = sizes.map((size) => (size === ANY_BATCH ? null : Number(size)));
      return {name: this.#text(view.getUint32(at, true)), shape, floats: Number(view.getBigInt64(at + 16, true))};
    });
    this.#c.free(at);
    return ports;
  }

  #memory(bytes) {
    const at = this.#c.malloc(Math.max(bytes, 8));
    if (!at) throw new RangeError(`sparsejax found no memory for ${bytes} bytes.`);
    return at;
  }

  #copied(bytes) {
    const at = this.#memory(bytes.length);
    new Uint8Array(this.#c.memory.buffer, at, bytes.length).set(bytes);
    return at;
  }

  #view() {
    return new DataView(this.#c.memory.buffer);
  }

  #text(at) {
    const bytes = new Uint8Array(this.#c.memory.buffer, at);
    return new TextDecoder().decode(bytes.slice(0, bytes.indexOf(0)));
  }

  #error() {
    return new Error(`sparsejax: ${this.#text(this.#c.sparsejax_last_error())}.`);
  }

  /** A trap leaves the instance in no known state: it is never called again. */
  #guarded(call) {
    if (this.#broken) throw new Error(this.#broken);
    try {
      return call();
    } catch (fault) {
      this.close();
      this.#broken = `sparsejax ran out of memory or met a fault (${fault.message}); load the network again.`;
      throw new Error(this.#broken);
    }
  }
}
