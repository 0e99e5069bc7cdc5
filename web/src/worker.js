/* The other end of index.js: one network, one message at a time. */

import {networkOf} from "./network.js";

let network;

onmessage = async ({data: {id, load, threads, run}}) => {
  try {
    if (load) network = await networkOf(load, threads);
    postMessage({id, value: load ? network.info : network.run(run)});
  } catch ({name, message}) {
    postMessage({id, error: {name, message}});
  }
};
