/* load(url) -> a network whose run() never blocks the page: it lives in workers where there are such. */

import {bytesOf} from "./modules.js";
import {networkOf} from "./network.js";
import {Pool} from "./pool.js";

/** See index.d.ts. */
export async function load(source, {onProgress, worker = typeof Worker === "function", threads = 1} = {}) {
  if (!(Number.isInteger(threads) && threads >= 1)) throw new RangeError(`load needs threads of 1 or more, got ${threads}.`);
  const bytes = await bytesOf(source, onProgress);
  if (worker) return Pool.of(bytes, threads);
  const network = await networkOf(bytes);
  return {info: network.info, run: async (inputs) => network.run(inputs), close() {}};
}
