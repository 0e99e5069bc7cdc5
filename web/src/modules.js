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

const compiled = new Map(); // by the kernels' name, for all networks of this thread

/** The exports of a fresh instance; a network that faults takes only its own down. */
export async function instance(kernels) {
  if (!compiled.has(kernels)) {
    const module = compile(new URL(`./sparsejax-${kernels}.wasm`, import.meta.url));
    compiled.set(kernels, module);
    module.catch(() => compiled.delete(kernels));
  }
  const {exports} = await WebAssembly.instantiate(await compiled.get(kernels), {wasi_snapshot_preview1: system});
  exports._initialize();
  return exports;
}

/** The module, compiled while it arrives where the engine can. */
async function compile(url) {
  if (url.protocol === "file:" || !WebAssembly.compileStreaming) return WebAssembly.compile(await bytesOf(url));
  try {
    return await WebAssembly.compileStreaming(fetch(url));
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    return WebAssembly.compile(await bytesOf(url)); // of a server that calls it something else
  }
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
