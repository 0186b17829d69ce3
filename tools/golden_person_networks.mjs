// Run MoveNet multipose or NanoDet as TF.js runs them, on one input, and write each output as raw
// float32. Called by golden_person_networks.py; needs @tensorflow/tfjs-core, -converter and
// -backend-cpu in the current folder.
//
//     node golden_person_networks.mjs MODEL.json INPUT.bin DTYPE 1,256,256,3 OUT_FOLDER NAME...

import fs from "node:fs";
import path from "node:path";
import { createRequire } from "node:module";

const require = createRequire(path.join(process.cwd(), "package.json"));
const tf = require("@tensorflow/tfjs-core");
const { loadGraphModel } = require("@tensorflow/tfjs-converter");
require("@tensorflow/tfjs-backend-cpu");

const [modelPath, inputPath, dtype, shapeText, outFolder, ...names] = process.argv.slice(2);

const description = JSON.parse(fs.readFileSync(modelPath));
const weights = fs.readFileSync(modelPath.replace(/\.json$/, ".bin"));
const model = await loadGraphModel({
  load: async () => ({
    modelTopology: description.modelTopology,
    signature: description.signature,
    weightSpecs: description.weightsManifest.flatMap((group) => group.weights),
    weightData: weights.buffer.slice(weights.byteOffset, weights.byteOffset + weights.length),
  }),
});

const bytes = fs.readFileSync(inputPath);
const values = new (dtype === "int32" ? Int32Array : Float32Array)(
  bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length),
);
const input = tf.tensor(values, shapeText.split(",").map(Number), dtype);

const outputs = await model.executeAsync(input, names);
[outputs].flat().forEach((output, index) => {
  fs.writeFileSync(path.join(outFolder, `${index}.bin`), Buffer.from(output.dataSync().buffer));
  fs.writeFileSync(path.join(outFolder, `${index}.json`), JSON.stringify(output.shape));
});
