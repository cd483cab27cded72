// Prepares an image in a browser for a model that `lamina export` wrote as ONNX. With
// onnxruntime-web as `ort`:
//
//   const description = await fetch("pets.onnx.json");
//   const { names, kind, thresholds, in_shape, resize } = await description.json();
//   const [channels, height, width] = in_shape;
//   const session = await ort.InferenceSession.create("pets.onnx");
//   const pixels = await prepare(file, in_shape, resize);
//   const images = new ort.Tensor("uint8", pixels, [1, height, width, channels]);
//   const { probabilities: { data } } = await session.run({ images });
//   const predicted = decide(kind, names, data, thresholds);
//
// Browsers resize images slightly differently from lamina, so probabilities differ slightly.
async function prepare(blob, [channels, height, width], resize) {
  const image = await createImageBitmap(blob, { imageOrientation: "from-image" });
  const stored = [image.width, image.height];
  const scales = [width / image.width, height / image.height];
  let [across, down] = [width, height];
  if (resize === "crop") [across, down] = stored.map((size) => size * Math.max(...scales));
  if (resize === "pad") [across, down] = stored.map((size) => Math.max(1, Math.round(size * Math.min(...scales))));
  const [left, top] = [(width - across) / 2, (height - down) / 2].map(resize === "pad" ? Math.floor : Number);
  const context = new OffscreenCanvas(width, height).getContext("2d");
  context.imageSmoothingQuality = "high";
  context.fillStyle = "black"; // padding
  context.fillRect(0, 0, width, height);
  context.fillStyle = "white"; // behind transparent pixels
  context.fillRect(left, top, across, down);
  context.drawImage(image, left, top, across, down);
  const rgba = context.getImageData(0, 0, width, height).data;
  const gray = (i) => Math.round(0.299 * rgba[i] + 0.587 * rgba[i + 1] + 0.114 * rgba[i + 2]);
  return Uint8Array.from({ length: width * height * channels }, (_, i) =>
    channels === 1 ? gray(4 * i) : rgba[4 * Math.floor(i / 3) + (i % 3)],
  );
}

// The class, yes or no, or the labels that lamina predict would print; for regression, undefined.
function decide(kind, names, probabilities, thresholds) {
  if (kind === "single-label") return names[probabilities.indexOf(Math.max(...probabilities))];
  if (kind === "binary") return probabilities[1] > thresholds[0] ? "yes" : "no";
  if (kind === "multi-label") return names.filter((_, place) => probabilities[place] > thresholds[place]);
}
