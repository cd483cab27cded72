// The webcam, for Try and for new classes.

export async function startCamera(video, size) {
  try {
    video.srcObject = await navigator.mediaDevices.getUserMedia({ video: size });
    await video.play();
  } catch (error) {
    throw new Error(`The webcam cannot be used: ${error.message}. Allow it in the browser, or choose files.`, {
      cause: error,
    });
  }
  video.hidden = false;
}

export function stopCamera(video) {
  for (const track of video.srcObject?.getTracks() ?? []) track.stop();
  Object.assign(video, { srcObject: null, hidden: true });
}

export function takeImage(video, type) {
  const canvas = Object.assign(document.createElement("canvas"), {
    width: video.videoWidth,
    height: video.videoHeight,
  });
  canvas.getContext("2d").drawImage(video, 0, 0);
  return new Promise((done) => canvas.toBlob(done, type, 0.9));
}
