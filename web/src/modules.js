/* Which of the compiled modules this engine can run, and its instance. */

const has = (...body) => WebAssembly.validate(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, ...body]));
// Functions of one vector instruction each: i8x16.popcnt, and i8x16.relaxed_swizzle.
const hasSimd = () => has(10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11);
const hasRelaxedSimd = () => has(15, 1, 13, 0, 65, 1, 253, 15, 65, 2, 253, 15, 253, 128, 2, 11);

/** "relaxed" where multiplications and additions fuse, else "simd". */
export function kernelsHere() {
  if (!hasSimd()) {
    throw new Error("sparsejax needs WebAssembly with SIMD (Chrome 91, Firefox 89, Safari 16.4, Node 16.4 or newer), this engine has none.");
  }
  return hasRelaxedSimd() ? "relaxed" : "simd";
}

// What the C library asks of a system; nothing of it is needed.
const NOT_SUPPORTED = 52;
const system = {
  fd_close: () => NOT_SUPPORTED,
  fd_seek: () => NOT_SUPPORTED,
  fd_write: () => NOT_SUPPORTED,
  clock_time_get: () => NOT_SUPPORTED,
};

/** Can threads share memory here? Browsers ask for two headers of the page. */
export const canShare = () => typeof SharedArrayBuffer === "function" && globalThis.crossOriginIsolated !== false;

const compiled = new Map(); // by name, for all networks of this thread

/** The compiled module, while it arrives where the engine can. */
export function moduleOf(name) {
  if (!compiled.has(name)) {
    const module = compile(new URL(`./sparsejax-${name}.wasm`, import.meta.url));
    compiled.set(name, module);
    module.catch(() => compiled.delete(name));
  }
  return compiled.get(name);
}

async function compile(url) {
  if (url.protocol === "file:" || !WebAssembly.compileStreaming) return WebAssembly.compile(await bytesOf(url));
  try {
    return await WebAssembly.compileStreaming(fetch(url));
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    return WebAssembly.compile(await bytesOf(url)); // of a server that calls it something else
  }
}

/** Memory for several threads; web/build.py has its sizes. */
export function sharedMemory() {
  try {
    return new WebAssembly.Memory({initial: 256, maximum: 32768, shared: true});
  } catch ({message}) {
    throw new RangeError(`sparsejax found no 2 GiB of addresses for threads to share (${message}); load the network with threads: 1.`);
  }
}

/** An instance; a network that faults takes only its own down. */
export async function instance(module, memory) {
  const imports = {wasi_snapshot_preview1: system, env: {memory}};
  return (await WebAssembly.instantiate(module, imports)).exports;
}

/** A worker, of browsers or of Node. */
export async function workerAt(url) {
  if (typeof Worker === "function") return new Worker(url, {type: "module"});
  const {Worker: Thread} = await import("node:worker_threads");
  return new Thread(url, {execArgv: []}); // which might be for the program alone, as --input-type is
}

/** The bytes behind a URL or path, or those that are given. */
export async function bytesOf(source, onProgress = () => {}) {
  if (source instanceof ArrayBuffer) return new Uint8Array(source);
  if (ArrayBuffer.isView(source)) return new Uint8Array(source.buffer, source.byteOffset, source.byteLength);
  const url = source instanceof URL ? source : new URL(source, globalThis.location?.href ?? `file://${globalThis.process.cwd()}/`);
  if (url.protocol === "file:") {
    const {readFile} = await import("node:fs/promises");
    return new Uint8Array(await readFile(url));
  }
  const response = await fetch(url);
  if (!response.ok) throw new Error(`sparsejax got ${response.status} ${response.statusText} for ${url}.`);
  const total = Number(response.headers.get("content-length")) || undefined;
  const parts = [];
  let loaded = 0;
  for await (const part of chunks(response.body)) {
    parts.push(part);
    loaded += part.length;
    onProgress({loaded, total});
  }
  return joined(parts, Uint8Array);
}

/** Arrays of a kind, one behind the other. */
export function joined(parts, Kind) {
  const whole = new Kind(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

async function* chunks(stream) {
  const reader = stream.getReader();
  for (let next = await reader.read(); !next.done; next = await reader.read()) yield next.value;
}
