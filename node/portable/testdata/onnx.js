// Runs ONNX models by onnxruntime. Standard input is a JSON list of {path,
// columns: {name: {type, cells}}}, where a null cell is NaN, and a number that
// JSON does not have a string. Standard output is a list of what each model gives,
// {output: {type, dims, values}}.
let ort;
try {
  ort = require("onnxruntime-node");
} catch (e) {
  console.error(String(e));
  process.exit(3); // no binary for this platform
}

async function run({ path, columns }) {
  const session = await ort.InferenceSession.create(path, { intraOpNumThreads: 1, interOpNumThreads: 1 });
  const feeds = {};
  for (const name of session.inputNames) {
    const { type, cells } = columns[name];
    const data = type === "string" ? cells : Float64Array.from(cells, (c) => (c === null ? NaN : Number(c)));
    feeds[name] = new ort.Tensor(type, data, [cells.length, 1]);
  }
  const outputs = {};
  for (const [name, tensor] of Object.entries(await session.run(feeds))) {
    outputs[name] = { type: tensor.type, dims: tensor.dims, values: Array.from(tensor.data) };
  }
  return outputs;
}

async function main() {
  let text = "";
  for await (const part of process.stdin) text += part;
  const all = [];
  for (const c of JSON.parse(text)) all.push(await run(c));
  console.log(JSON.stringify(all));
}

main();
