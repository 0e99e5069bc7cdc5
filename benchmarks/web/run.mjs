// node run.mjs FOLDER NAME...: what the networks of these files, and the peers, take in Node, as JSON.
import {readFile} from "node:fs/promises";
import {createRequire} from "node:module";
import {join} from "node:path";

import {load} from "../../web/src/index.js";
import {compared} from "./compare.mjs";

const [folder, ...ours] = process.argv.slice(2);
const need = createRequire(join(folder, "package.json"));
const ort = need("onnxruntime-web/wasm"), tf = need("@tensorflow/tfjs-core");
need("@tensorflow/tfjs-backend-cpu");
need("@tensorflow/tfjs-backend-wasm");
const read = async (name) => Uint8Array.from(await readFile(join(folder, name))).buffer;
console.log(JSON.stringify(await compared({read, ours, load, ort, tf})));
