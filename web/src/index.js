/* load(url) -> a network whose run() never blocks the page: it lives in workers where there are such. */

import {bytesOf} from "./modules.js";
import {networkOf} from "./network.js";
import {Pool} from "./pool.js";

/** See index.d.ts. */
export async function load(source, {onProgress, worker = typeof Worker === "function", threads = 1} = {}) {
  if (!(Number.isInteger(threads) && threads >= 1 && threads <= 256)) throw new RangeError(`load needs threads of 1 to 256, got ${threads}.`);
  const bytes = await bytesOf(source, onProgress);
  if (worker) return Pool.of(bytes, threads);
  const inPage = typeof document === "object"; // whose thread must not wait for others
  const network = await networkOf(bytes, inPage ? 1 : threads);
  return {info: network.info, run: async (inputs) => network.run(inputs), close: () => network.close()};
}
