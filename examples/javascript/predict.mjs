// Labels image files: node predict.mjs model.onnx photo.jpg …
import { readFile } from "node:fs/promises";
import * as ort from "onnxruntime-web";
import sharp from "sharp";
import { Classifier } from "./classifier.mjs";

const [model, ...files] = process.argv.slice(2);
if (!files.length) {
  console.error("usage: node predict.mjs model.onnx IMAGE…");
  process.exit(2);
}
const classifier = await Classifier.create(ort, await readFile(model));
let numUnreadable = 0;
for (const file of files) {
  try {
    // Turned as its EXIF orientation says, and in sRGB, as in training.
    const image = sharp(file).rotate().toColourspace("srgb").ensureAlpha().raw();
    const { data, info } = await image.toBuffer({ resolveWithObject: true });
    const [best] = await classifier.predict(data, info.width, info.height);
    console.log(`${file}: ${best.label} (${(100 * best.probability).toFixed(1)}%)`);
  } catch (error) {
    numUnreadable += 1;
    console.log(`${file}: cannot be read: ${error.message}`);
  }
}
process.exit(numUnreadable ? 3 : 0);
