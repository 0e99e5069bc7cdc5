/* Workers: one with a network of several threads where these can share memory, else each with a network of its own, to
   which calls and the items of a batch go. */

import {canShare, joined} from "./modules.js";

export class Pool {
  #workers;

  static async of(bytes, threads) {
    const shared = canShare(), pool = new Pool(Array.from({length: shared ? 1 : threads}, () => new End()));
    try {
      const [info] = await Promise.all(pool.#workers.map((worker) => worker.ask({load: bytes, threads: shared ? threads : 1})));
      pool.info = {...info, threads};
      return pool;
    } catch (error) {
      pool.close();
      throw error;
    }
  }

  constructor(workers) {
    this.#workers = workers;
  }

  async run(inputs) {
    const idle = [...this.#workers].sort((a, b) => a.waiting - b.waiting);
    const batch = this.#batchOf(inputs), parts = Math.min(batch, idle.length);
    if (parts < 2) return idle[0].ask({run: inputs});
    const begin = (part) => Math.floor((batch * part) / parts);
    const runs = idle.slice(0, parts).map((worker, part) => worker.ask({run: this.#items(inputs, begin(part), begin(part + 1))}));
    const outputs = await Promise.all(runs);
    return Object.fromEntries(this.info.outputs.map(({name}) => [name, joined(outputs.map((part) => part[name]), Float32Array)]));
  }

  close() {
    for (const worker of this.#workers) worker.close();
  }

  /** How many items there are; 1 where that is for the network to say, or to refuse. */
  #batchOf(inputs) {
    const ports = this.info.inputs, arrays = ports.map(({name}) => arrayOf(inputs, name));
    const sizes = ports.map(({floats}, i) => (arrays[i]?.length ?? 0) / floats);
    const known = ArrayBuffer.isView(inputs) ? ports.length === 1 : Object.keys(inputs ?? {}).length === ports.length;
    const alike = known && ports[0].shape[0] === null && Number.isInteger(sizes[0]) && sizes.every((size) => size === sizes[0]);
    return alike ? sizes[0] : 1;
  }

  #items(inputs, begin, end) {
    return Object.fromEntries(this.info.inputs.map(({name, floats}) => [name, arrayOf(inputs, name).slice(begin * floats, end * floats)]));
  }
}

const arrayOf = (inputs, name) => (ArrayBuffer.isView(inputs) ? inputs : inputs?.[name]);

/** This end of a worker. */
class End {
  #thread = new Worker(new URL("./worker.js", import.meta.url), {type: "module"});
  #waiting = new Map();
  #next = 0;
  #failed = "";

  constructor() {
    this.#thread.onmessage = ({data: {id, value, error}}) => {
      const {resolve, reject} = this.#waiting.get(id);
      this.#waiting.delete(id);
      error ? reject(Object.assign(new Error(error.message), {name: error.name})) : resolve(value);
    };
    this.#thread.onerror = ({message}) => this.#fail(message ?? "it could not be started");
  }

  get waiting() {
    return this.#waiting.size;
  }

  ask(message) {
    return new Promise((resolve, reject) => {
      if (this.#failed) throw new Error(this.#failed);
      this.#waiting.set(this.#next, {resolve, reject});
      this.#thread.postMessage({id: this.#next++, ...message});
    });
  }

  close() {
    this.#thread.terminate();
    this.#fail("the network was closed");
  }

  #fail(why) {
    this.#failed = `sparsejax's worker failed: ${why}.`;
    for (const {reject} of this.#waiting.values()) reject(new Error(this.#failed));
    this.#waiting.clear();
  }
}
