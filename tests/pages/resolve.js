// The page of the studio shares modules with the page of `lamina serve`.

const SHARED = ["./request.js", "./view.js"];
const SERVE = new URL("../../src/lamina/deploy/serve/page/", import.meta.url);

export function resolve(name, context, next) {
  const isOfStudio = context.parentURL?.includes("/studio/page/");
  const url = isOfStudio && SHARED.includes(name) ? new URL(name, SERVE).href : name;
  return next(url, context);
}
