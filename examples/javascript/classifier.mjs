// A model file that `timebox export` wrote, for Node and the browser.

/** Class names and input of a model, from the metadata that lies in its file. */
export class Classifier {
  /**
   * @param {object} ort the module onnxruntime-web
   * @param {Uint8Array} bytes the content of model.onnx
   */
  static async create(ort, bytes) {
    const metadata = readMetadata(bytes);
    const session = await ort.InferenceSession.create(bytes);
    return new Classifier(ort, session, JSON.parse(metadata.class_names), JSON.parse(metadata.channels));
  }

  constructor(ort, session, classNames, channels) {
    Object.assign(this, { ort, session, classNames, channels });
  }

  /**
   * The classes of an image, most probable first.
   * @param {Uint8Array|Uint8ClampedArray} rgba four bytes a pixel, row by row
   * @returns {Promise<{label: string, probability: number}[]>}
   */
  async predict(rgba, width, height) {
    const pixels = toChannels(rgba, this.channels);
    const images = new this.ort.Tensor("uint8", pixels, [1, height, width, this.channels]);
    const { probabilities } = await this.session.run({ images });
    return this.classNames
      .map((label, index) => ({ label, probability: probabilities.data[index] }))
      .sort((one, other) => other.probability - one.probability);
  }
}

/** Pixels with the model's channels: 3 for RGB, 1 for grey, weighted as timebox does. Transparent ones lie on white. */
export function toChannels(rgba, channels) {
  const pixels = new Uint8Array((rgba.length / 4) * channels);
  for (let from = 0, to = 0; from < rgba.length; from += 4, to += channels) {
    const alpha = rgba[from + 3];
    const [r, g, b] = [0, 1, 2].map((k) => Math.round((rgba[from + k] * alpha + 255 * (255 - alpha)) / 255));
    if (channels === 1) pixels[to] = (r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16;
    else pixels.set(channels === 4 ? rgba.subarray(from, from + 4) : [r, g, b], to);
  }
  return pixels;
}

const METADATA_FIELD = 14; // metadata_props of ModelProto in onnx.proto

/** The metadata of an ONNX file, which onnxruntime-web does not give: pairs of texts in the protobuf of the model. */
export function readMetadata(bytes) {
  const metadata = {};
  for (const [field, value] of protobufFields(bytes)) {
    if (field !== METADATA_FIELD) continue;
    const entry = Object.fromEntries(protobufFields(value));
    metadata[new TextDecoder().decode(entry[1])] = new TextDecoder().decode(entry[2]);
  }
  return metadata;
}

function* protobufFields(bytes) {
  let place = 0;
  const number = () => {
    let [value, factor] = [0, 1];
    for (; ; factor *= 128) {
      const byte = bytes[place++];
      value += (byte & 127) * factor;
      if (byte < 128) return value;
    }
  };
  const skip = { 0: number, 1: () => (place += 8), 5: () => (place += 4) };
  while (place < bytes.length) {
    const tag = number();
    if (tag % 8 !== 2) {
      skip[tag % 8]();
      continue;
    }
    const length = number();
    yield [Math.floor(tag / 8), bytes.subarray(place, (place += length))];
  }
}
