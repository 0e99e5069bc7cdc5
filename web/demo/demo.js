/* Two pages, of which one is shown and started: photos and garments. */

import * as garment from "./garment.js";
import {element, say, showSwitch} from "./parts.js";
import * as photo from "./photo.js";

const query = new URLSearchParams(location.search);
const PAGES = {
  photo: {words: "A photo", page: photo, files: query.get("photos") ?? "../../build/web-demo/"},
  garment: {words: "A garment", page: garment, files: query.get("garments") ?? "../../demo-output/"},
};
const started = new Set();
let shown = location.hash.slice(1) in PAGES ? location.hash.slice(1) : "photo";

function open(name) {
  shown = name;
  for (const each of Object.keys(PAGES)) element(each + "-page").hidden = each !== name;
  if (started.has(name)) return;
  started.add(name);
  PAGES[name].page.start(PAGES[name].files).catch(({message}) => say(message));
}

const take = async (file) => {
  if (file?.type.startsWith("image/")) PAGES[shown].page.show(await createImageBitmap(file));
  else say("That is no picture.");
};
for (const input of document.querySelectorAll("input[type=file]")) input.onchange = ({target}) => target.files[0] && take(target.files[0]);
document.ondragover = (event) => event.preventDefault();
document.ondrop = (event) => {
  event.preventDefault();
  take(event.dataTransfer.files[0]);
};
showSwitch(element("pages"), Object.fromEntries(Object.entries(PAGES).map(([name, {words}]) => [name, words])), shown, open);
open(shown);
