// node run.mjs FILE INPUT...: the outputs of one item, in their order, as floats on standard output.
import {readFile} from "node:fs/promises";

import {load} from "../../web/src/index.js";

const [file, ...paths] = process.argv.slice(2);
try {
  const net = await load(file);
  const floats = async (path) => new Float32Array(Uint8Array.from(await readFile(path)).buffer);
  const arrays = await Promise.all(paths.map(floats));
  const inputs = Object.fromEntries(net.info.inputs.map(({name}, i) => [name, arrays[i]]));
  const outputs = await net.run(inputs);
  for (const {name} of net.info.outputs) process.stdout.write(Buffer.from(outputs[name].buffer));
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}
