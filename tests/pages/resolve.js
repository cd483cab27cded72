// The pages of the studio and of `lamina serve` share modules.

const SHARED = ["./camera.js", "./image-form.js", "./parts.js", "./preact.js", "./request.js"];
const WEB = new URL("../../src/lamina/deploy/web/page/", import.meta.url);

export function resolve(name, context, next) {
  const url = SHARED.includes(name) ? new URL(name, WEB).href : name;
  return next(url, context);
}
