// The webcam, for Try and for new classes.

const REMEDY = "Allow it in the browser, or choose files.";

export async function startCamera(video, size) {
  try {
    // only pages of this machine and https pages may use it
    if (!navigator.mediaDevices) throw new Error("the browser allows it only on https pages");
    video.srcObject = await navigator.mediaDevices.getUserMedia({ video: size });
    if (!video.isConnected) return stopCamera(video); // closed meanwhile
    await video.play();
  } catch (error) {
    throw new Error(`The webcam cannot be used: ${error.message}. ${REMEDY}`, { cause: error });
  }
}

export function stopCamera(video) {
  for (const track of video.srcObject?.getTracks() ?? []) track.stop();
  video.srcObject = null;
}

export function takeImage(video, type) {
  const { videoWidth: width, videoHeight: height } = video;
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  canvas.getContext("2d").drawImage(video, 0, 0);
  return new Promise((resolve) => canvas.toBlob(resolve, type, 0.9));
}
