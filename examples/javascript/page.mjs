// Classifies images that are dropped or chosen. Nothing leaves the page.
import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs";
import { Classifier } from "./classifier.mjs";

const MODEL = new URLSearchParams(location.search).get("model") ?? "model.onnx";
const SHOWN = 5;
const state = document.querySelector("#state");
const drop = document.querySelector(".drop");
const input = document.querySelector("input");
const answers = document.querySelector("#answers");

ort.env.wasm.numThreads = 1; // more need pages that are isolated across origins
ort.env.wasm.wasmPaths = new URL("./node_modules/onnxruntime-web/dist/", import.meta.url).href;

async function load() {
  const response = await fetch(MODEL);
  if (!response.ok) throw new Error(`${MODEL} is not here: copy the file that timebox export wrote beside this page`);
  return Classifier.create(ort, new Uint8Array(await response.arrayBuffer()));
}

function element(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

async function answer(classifier, file) {
  try {
    const bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
    const canvas = element("canvas", { width: bitmap.width, height: bitmap.height });
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", file.name);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(bitmap, 0, 0);
    const pixels = context.getImageData(0, 0, bitmap.width, bitmap.height).data;
    const started = performance.now();
    const classes = await classifier.predict(pixels, bitmap.width, bitmap.height);
    const took = Math.round(performance.now() - started);
    const rows = classes.slice(0, SHOWN).flatMap(({ label, probability }) => [
      element("dt", { textContent: label }),
      element("dd", {}, element("meter", { value: probability, ariaLabel: label })),
      element("dd", { className: "number", textContent: `${(100 * probability).toFixed(1)}%` }),
    ]);
    const name = element("p", { textContent: `${file.name}, ${took} ms` });
    return element("article", {}, canvas, element("div", {}, name, element("dl", {}, ...rows)));
  } catch {
    return element("p", { className: "error", textContent: `${file.name} is no image that this browser can read` });
  }
}

async function answerAll(classifier, files) {
  for (const file of files) answers.prepend(await answer(classifier, file));
}

try {
  const classifier = await load();
  state.textContent = `${classifier.classNames.length} classes: ${classifier.classNames.slice(0, 12).join(", ")}${classifier.classNames.length > 12 ? ", …" : ""}`;
  input.disabled = false;
  input.addEventListener("change", () => answerAll(classifier, input.files));
  for (const name of ["dragover", "dragleave", "drop"]) {
    drop.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", name === "dragover");
      if (name === "drop") answerAll(classifier, event.dataTransfer.files);
    });
  }
} catch (error) {
  state.textContent = error.message;
  state.className = "error";
}
