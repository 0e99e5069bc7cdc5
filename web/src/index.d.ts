/** An input or output: float32 in C order. */
export interface Port {
  /** The path in the function's arguments, or in what it returned. */
  name: string;
  /** Sizes; null is a batch of any size. */
  shape: (number | null)[];
  /** Floats of one item of the batch. */
  floats: number;
}

export interface Info {
  /** "relaxed" where multiplications and additions fuse, else "simd". */
  kernels: "relaxed" | "simd";
  /**
   * Threads that share each call in Node and on pages that are cross-origin isolated; on others workers,
   * each with a network of its own; 1 where there are none.
   */
  threads: number;
  inputs: Port[];
  outputs: Port[];
}

export interface Network {
  readonly info: Info;
  /**
   * The outputs by name. Inputs are Float32Arrays by name, or one array where there is one input;
   * their length says how many items there are. All threads share a call; where memory cannot be shared
   * it goes to the least busy worker, the items of a batch to all of them.
   */
  run(inputs: Record<string, Float32Array> | Float32Array): Promise<Record<string, Float32Array>>;
  /** Ends the threads, and with them the calls under way; later ones are refused. */
  close(): void;
}

export interface Options {
  /** Called while a URL is fetched; `total` is undefined where the server does not say it. */
  onProgress?: (progress: {loaded: number; total?: number}) => void;
  /** Run in a worker, so that a page never freezes; true where there are workers. */
  worker?: boolean;
  /** Threads, 1 to 256; 1. Without a worker a page has one. */
  threads?: number;
}

/**
 * The network in a file that sparsejax.save wrote.
 *
 * @param source a URL, a path (Node), or the bytes.
 * @throws Error in a sentence: no such file, a damaged one, one for a newer reader, no SIMD, no memory.
 */
export function load(source: string | URL | ArrayBuffer | ArrayBufferView, options?: Options): Promise<Network>;
