// The pages of the studio and of `lamina serve` share modules.

const SHARED = /\/((?:camera|image-form|parts|preact|request)\.js)$/u;
const WEB = new URL("../../src/lamina/deploy/web/page/", import.meta.url);

export function resolve(name, context, next) {
  const shared = SHARED.exec(name);
  return next(shared ? new URL(shared[1], WEB).href : name, context);
}
